"""The text tab: its handlers, its links, and the whole flow in a browser, on tiny transformers made here."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from playwright.sync_api import Page, expect

import attrib
from app import answers, downloads, explaining, predictions, text_links
from app.answers import Answer
from app.catalogue import Catalogue, kinds_of
from app.questions import Ask
from app.runs import Run
from app.text_links import TextView
from attrib.models import MODELS
from attrib.render import Display
from tests.app import tiny_text
from tests.app.conftest import Server
from tests.app.tiny_text import CLASSIFIER, LANGUAGE

TEXT = "the film was not good at all <script>alert(1)</script>"
LONG = 30_000  # ms


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    for name in (CLASSIFIER, LANGUAGE):
        monkeypatch.setitem(MODELS, name, None)  # type: ignore[arg-type]  # so that it is taken out again
    tiny_text.offer()
    return Catalogue((CLASSIFIER, LANGUAGE, "squeezenet1_1"))


def run(catalogue: Catalogue, **changes: Any) -> Answer:
    fields: dict[str, Any] = {"photo": "", "model": CLASSIFIER, "methods": (("lrp", {}),), "text": TEXT}
    return list(explaining.explain(Ask(**{**fields, **changes}), catalogue, Run(100)))[-1].answer


def test_each_tab_has_its_models(catalogue: Catalogue) -> None:
    assert catalogue.of("text") == (CLASSIFIER, LANGUAGE)
    assert catalogue.of("image") == ("squeezenet1_1",)


def test_a_local_folder_is_offered_where_its_head_belongs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["ViTForImageClassification"]}')
    assert kinds_of(f"hf:{tmp_path}") == ("image",)
    (tmp_path / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    assert kinds_of(f"hf:{tmp_path}") == ("text",)
    assert kinds_of("hf:some/thing") == ("image", "text")
    assert kinds_of("timm:resnet50") == ("image",)


def test_classes_and_next_tokens_are_predicted(catalogue: Catalogue) -> None:
    assert len(predictions.predict_text(catalogue, TEXT, CLASSIFIER)) == 3
    tokens = predictions.predict_text(catalogue, TEXT, LANGUAGE)
    assert len(tokens) == 10
    assert len(predictions.text_choices(catalogue, LANGUAGE, tokens)) == 10


def test_lrp_tells_content_and_position_apart_by_itself(catalogue: Catalogue) -> None:
    result = run(catalogue).results["lrp"]
    assert result.parts is not None
    assert result.provenance.settings["preset"] == "attn_lrp"
    assert sum(float(v[0]) for v in (result.ledger or {}).values()) == pytest.approx(float(result.score[0]), abs=1e-5)


def test_a_contrast_is_the_difference_of_logits(catalogue: Catalogue) -> None:
    answer = run(catalogue, target="good", versus="bad")
    assert answers.target_name(answer) == "good rather than bad"
    first, second = (run(catalogue, target=t).results["lrp"] for t in ("good", "bad"))
    assert float(answer.results["lrp"].score[0]) == pytest.approx(float(first.score[0] - second.score[0]), abs=1e-5)


def test_a_token_is_called_as_it_reads(catalogue: Catalogue) -> None:
    assert answers.target_name(run(catalogue, model=LANGUAGE, target="paris", versus="london")) == (
        "paris rather than london"
    )


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"text": ""}, attrib.InputError, "write or paste a text"),
        ({"text": " \n"}, attrib.InputError, "write or paste a text"),
        ({"text": "good " * 100}, attrib.InputError, "64"),
        ({"text": "\ud800"}, attrib.InputError, "surrogate"),
        ({"target": "wonderful"}, attrib.TargetError, "wonderful"),
        ({"model": LANGUAGE, "target": "paris london"}, attrib.TargetError, "not one token"),
        ({"model": "squeezenet1_1"}, attrib.InputError, "model for images"),
        ({"methods": (("grad_cam", {}),)}, attrib.UnknownName, "grad_cam"),
        ({"target": "good", "versus": "good"}, attrib.TargetError, "same"),
    ],
)
def test_a_wrong_question_is_one_clear_error(
    catalogue: Catalogue, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(catalogue, **changes)


def test_files_hold_everything_and_no_markup_of_the_text(catalogue: Catalogue, tmp_path: Path) -> None:
    paths = [Path(p) for p in downloads.write(run(catalogue), Display(whole_words=True), tmp_path)]
    assert sorted(p.suffix for p in paths) == [".html", ".json", ".png", ".safetensors", ".zip"]
    page = next(p for p in paths if p.suffix == ".html").read_text()
    assert "<script" not in page
    assert "at-ledger" in page
    with zipfile.ZipFile(paths[0]) as archive:
        assert sorted(archive.namelist()) == sorted(p.name for p in paths[1:])


def test_a_link_comes_back_as_it_went() -> None:
    view = TextView(
        text="not good & <b>", model=LANGUAGE, methods=("lrp",), target=" Paris", versus=7,
        display=Display(part="position", how="own", palette="green–brown"), settings={"lrp": {"preset": "cp_lrp"}},
    )  # fmt: skip
    assert text_links.from_query(dict(parse_qsl(text_links.to_query(view))), (LANGUAGE,)) == (view, [])
    digit = TextView(target="7")
    assert text_links.from_query(dict(parse_qsl(text_links.to_query(digit))), ())[0] == digit
    assert "text=x" not in text_links.to_query(TextView(text="x" * 5000))


@pytest.mark.parametrize("query", ["model=evil", "part=x", "words=maybe", "scale=density", "methods=grad_cam"])
def test_what_a_link_asks_for_in_vain_is_said(query: str) -> None:
    _, problems = text_links.from_query(dict(parse_qsl(query)), (LANGUAGE,))
    assert len(problems) == 1


def test_a_visitor_writes_a_text_and_sees_why(page: Page, texts: Server) -> None:
    page.goto(texts.url + "?tab=text")
    expect(page.get_by_role("tab", name="Text")).to_have_attribute("aria-selected", "true", timeout=LONG)
    expect(page.locator("#tx-text textarea")).to_be_visible(timeout=LONG)
    page.locator("#tx-text textarea").focus()
    page.keyboard.insert_text(TEXT)  # as a paste does: without key presses
    rows = page.locator("#tx-predictions button")
    expect(rows).to_have_count(3, timeout=LONG)
    rows.nth(1).click()
    expect(rows.nth(1)).to_have_attribute("aria-pressed", "true")
    page.locator("#tx-explain").click()
    expect(page.locator("#tx-status .at-done")).to_be_visible(timeout=LONG)
    tokens = page.locator("#tx-gallery .at-card").first.locator(".at-token")
    assert "not" in tokens.all_inner_texts()
    assert page.locator("#tx-gallery script").count() == 0
    expect(page.locator("#tx-gallery .at-legend .at-ramp")).not_to_have_count(0)
    expect(page.locator("#tx-gallery .at-ledger").first).to_be_visible()
    tokens.nth(4).focus()
    shown = tokens.nth(4).evaluate("e => getComputedStyle(e, '::after').content")
    assert str(tokens.nth(4).get_attribute("data-value")) in shown

    page.locator("#tx-part").get_by_label("Position").check()
    lrp = page.locator("#tx-gallery .at-card").filter(has_text="Layer-wise relevance propagation")
    expect(lrp.locator(".at-part")).to_have_text("Shown: position alone.", timeout=LONG)
    with page.expect_download(timeout=LONG) as waiting:
        page.locator("#tx-html").click()
    assert "<script" not in Path(waiting.value.path()).read_text()
    page.locator("#tx-share").click()
    expect(page.locator("#tx-link textarea, #tx-link input").first).to_have_value(
        re.compile("tab=text.*part=position"), timeout=LONG
    )
    page.goto(page.url)  # the link restores the page
    expect(page.locator("#tx-text textarea")).to_have_value(TEXT, timeout=LONG)
    expect(rows.nth(1)).to_have_attribute("aria-pressed", "true", timeout=LONG)


def test_a_visitor_clicks_through_what_the_model_wrote(page: Page, texts: Server) -> None:
    page.goto(
        texts.url + f"?tab=text&model={LANGUAGE}&text=the+capital+of+france&write=3&continuation=+is+paris&methods=lrp"
    )
    expect(page.locator("#tx-new input[type=number]")).to_have_value("3", timeout=LONG)
    page.locator("#tx-explain").click()
    rows = page.locator("#tx-gallery .at-triangle button")
    expect(rows).to_have_count(2, timeout=LONG)
    tokens = page.locator("#tx-gallery .at-card .at-token")
    before = tokens.count()
    rows.nth(1).focus()
    page.keyboard.press("Enter")
    expect(rows.nth(1)).to_have_attribute("aria-pressed", "true", timeout=LONG)
    expect(rows.nth(1)).to_be_focused()  # the keyboard goes on where it was
    expect(tokens).to_have_count(before + 1)
    expect(page.locator("#tx-gallery h2")).to_have_text("Why “is paris”?")


def test_a_visitor_checks_a_map(page: Page, texts: Server) -> None:
    page.goto(texts.url + f"?tab=text&model={CLASSIFIER}&text=the+film+was+not+good&methods=lrp,input_x_gradient")
    expect(page.locator("#tx-predictions button")).to_have_count(3, timeout=LONG)
    page.locator("#tx-explain").click()
    asked = page.locator("#tx-gallery [data-check]")
    expect(asked).to_have_count(2, timeout=LONG)
    card = page.locator("#tx-gallery .at-card").filter(has=page.locator("[data-check='lrp']"))
    expect(card.locator(".at-told")).to_contain_text("361 forwards")
    light = page.locator("#tx-gallery [data-evidence='lrp'] .at-light").nth(2)
    light.locator("summary").press("Enter")
    expect(light).to_contain_text("9 more explanations")
    asked.and_(page.locator("[data-check='lrp']")).press("Enter")  # by keyboard
    expect(page.locator("#tx-status .at-done")).to_contain_text("checked", timeout=LONG)
    expect(asked).to_have_count(1)
    expect(page.locator("#tx-gallery [data-evidence='lrp']")).to_be_focused()
    expect(light.locator(".at-plot")).to_be_visible()  # what was opened stayed open
    expect(light.locator("summary strong")).to_have_text(re.compile("passes|fails"))
    expect(page.locator("#tx-explain")).to_be_enabled()


def test_a_program_predicts_and_explains(texts: Server, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gradio_client import Client
    client = Client(texts.url, verbose=False, download_files=str(tmp_path), analytics_enabled=False)
    assert len(client.predict(TEXT, CLASSIFIER, 2, api_name="/predict_text")) == 2
    answer, files = client.predict(TEXT, CLASSIFIER, ["lrp"], "good", "bad", {}, api_name="/explain_text")
    result = answer["results"]["lrp"]
    assert [token for token, _ in result["tokens"]][:4] == ["[CLS]", "the", "film", "was"]
    content, position = result["parts"]["content"], result["parts"]["position"]
    for (_, value), c, p in zip(result["tokens"], content, position, strict=True):
        assert value == pytest.approx(c + p, abs=1e-6)
    assert len(files) == 5
    answer, files = client.predict(TEXT, LANGUAGE, ["saliency"], 2, "", "", {}, api_name="/explain_generation")
    assert len(answer["results"]["saliency"]["rows"]) == 2
    assert len(files) == 5
    client.close()
