"""The patching tab: its handlers, its files and links, on tiny transformers."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from PIL import Image
from safetensors.numpy import load_file

import attrib
from app import patching, patching_circuit, patching_downloads, patching_links, patching_markup, patching_pairs
from app.catalogue import Catalogue
from app.patching import PatchAnswer
from app.patching_heatmaps import drawn_panels, scales_of
from app.patching_links import PatchView
from app.patching_questions import NOT_USUAL, SITE_KINDS, USUAL_KINDS, PatchAsk, example, kinds_for, method_of, model_of
from app.runs import Run
from app.watching import watched
from attrib.models import MODELS
from tests.app import tiny_text
from tests.app.tiny_text import CLASSIFIER, LANGUAGE

HOSTILE = "<script>alert(1)</script>"
CLEAN, CORRUPTED = f"the film was good {HOSTILE}", f"the food was good {HOSTILE}"


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    for name in (CLASSIFIER, LANGUAGE):
        monkeypatch.setitem(MODELS, name, None)  # type: ignore[arg-type]  # so that it is taken out again
    tiny_text.offer()
    return Catalogue((CLASSIFIER, LANGUAGE))


def asked(**changes: Any) -> PatchAsk:
    return PatchAsk(**{"clean": CLEAN, "corrupted": CORRUPTED, "model": LANGUAGE, "answer": "good", "wrong": "bad",
                       **changes})  # fmt: skip


def patched(catalogue: Catalogue, **changes: Any) -> PatchAnswer:
    return patching.patch(asked(**changes), catalogue, lambda *_: None)


def test_heatmaps_hold_the_values_of_the_library(catalogue: Catalogue) -> None:
    answer = patched(catalogue)
    target, sites = attrib.LogitDiff("good", "bad"), ("resid_post.*", "attn_out.*", "mlp_out.*", "head.*.*")
    plain = attrib.explain(catalogue[LANGUAGE], attrib.pair(CLEAN, CORRUPTED), attrib.RelP(sites=sites), target)
    assert answer.result.sites == plain.sites
    drawn = dict(drawn_panels(answer.result, answer.kinds))
    assert list(drawn) == ["resid_post", "attn_out", "mlp_out", "head"]
    tokens = plain.values.shape[2]
    assert drawn["attn_out"].values.shape == (2, tokens)
    places = [plain.sites.index(f"attn_out.{layer}") for layer in (0, 1)]  # type: ignore[union-attr]
    assert drawn["attn_out"].values == pytest.approx(plain.values[0, places].numpy(), abs=1e-6)
    assert drawn["head"].values.shape == (2, 4)  # layers × heads
    third = plain.sites.index("head.1.3")  # type: ignore[union-attr]
    assert drawn["head"].values[1, 3] == pytest.approx(float(plain.values[0, third].sum()), abs=1e-6)


def test_one_scale_is_shared_and_says_its_unit(catalogue: Catalogue) -> None:
    answer = patched(catalogue)
    drawn = drawn_panels(answer.result, answer.kinds)
    strongest = float(answer.result.values.abs().max())
    heads = max(abs(panel.values).max() for _, panel in drawn)
    raw = scales_of(answer, drawn, "raw", "blue–red")
    assert {scale.limit for scale in raw} == {max(strongest, heads)}
    (share,) = {scale.limit for scale in scales_of(answer, drawn, "share", "blue–red")}
    change = answer.metric[0] - answer.metric[1]
    assert share == pytest.approx(100 * raw[0].limit / abs(change))
    assert len({scale.limit for scale in scales_of(answer, drawn, "own", "blue–red")}) > 1
    assert "% of the metric" in patching_markup.shown(answer, "share", "blue–red")


def test_the_strongest_are_verified_with_their_correlation(catalogue: Catalogue) -> None:
    fractions: list[float] = []
    answer = patched(catalogue)
    found = patching.verify(answer, catalogue, 5, "mlp_out", lambda fraction, _="": fractions.append(fraction))
    assert found.verified is not None
    assert {entry.site.split(".")[0] for entry in found.verified.entries} == {"mlp_out"}
    true = attrib.explain(
        catalogue[LANGUAGE], answer.pair, attrib.ActivationPatching(sites="mlp_out.*"), attrib.LogitDiff("good", "bad")
    )
    for entry in found.verified.entries:
        place = (true.sites or ()).index(entry.site)
        assert entry.true == pytest.approx(float(true.values[0, place, entry.position]), abs=1e-5)
    shown = patching_markup.verification(found)
    assert f"{found.verified.correlation:.3f}".replace("-", "−") in shown
    assert shown.count("<circle") == 5
    assert max(fractions) == 1.0 and fractions == sorted(fractions)
    assert found.checked is not None
    (light,) = found.checked.lights[0]
    sampled = attrib.sampled_correlation(catalogue[LANGUAGE], answer.pair, patching.of_kind(answer.result, "mlp_out"))
    assert light.value == pytest.approx(sampled.pearson.value, abs=1e-5)
    assert f"{light.verdict}: agrees with activation patching" in shown
    (told,) = patching_downloads.document(found)["verification"]["lights"]
    assert told == {"name": light.name, "verdict": light.verdict, "words": light.words}
    with pytest.raises(attrib.InputError, match="from 1 to 200"):
        patching.verify(answer, catalogue, 0, "", lambda *_: None)
    with pytest.raises(attrib.UnknownName, match="resid_mid"):
        patching.verify(answer, catalogue, 3, "resid_mid", lambda *_: None)


def test_a_stopped_verification_ends(catalogue: Catalogue) -> None:
    answer, run = patched(catalogue, kinds=("head", "q")), Run(100)

    def work(on_progress: Any) -> PatchAnswer:
        def progress(fraction: float, message: str = "") -> None:
            run.stop()
            on_progress(fraction, message)

        return patching.verify(answer, catalogue, 100, "", progress)

    with pytest.raises(attrib.Cancelled):
        list(watched(run, work, lambda *_: None))


def test_what_is_true_already_is_not_verified(catalogue: Catalogue) -> None:
    answer = patched(catalogue, method="activation_patching", kinds=("attn_out",))
    with pytest.raises(attrib.InputError, match="true ones already"):
        patching.verify(answer, catalogue, 5, "", lambda *_: None)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"corrupted": "the was good"}, attrib.PromptPairError, "The clean prompt has .* fill up the shorter"),
        ({"corrupted": CLEAN}, attrib.PromptPairError, "Both prompts are the same"),
        ({"corrupted": " "}, attrib.InputError, "write the corrupted prompt first"),
        ({"clean": "a " * 40 + "film", "corrupted": "a " * 200}, attrib.AttribError, "token"),
        ({"answer": "good film"}, attrib.TargetError, "is not one token of tiny-language: it becomes 'good', 'film'"),
        ({"wrong": "good"}, attrib.TargetError, "answer and wrong answer are both 'good'"),
        ({"answer": None}, attrib.TargetError, "choose the answer"),
        ({"answer": 10**6}, attrib.TargetError, "out of range"),
        ({"patterns": ("atn_out.1",)}, attrib.UnknownName, "did you mean attn_out.1"),
        ({"kinds": ()}, attrib.InputError, "choose at least one kind of site"),
        ({"kinds": ("nothing",)}, attrib.UnknownName, "no kind of site is called 'nothing'"),
        ({"method": "saliency"}, attrib.UnknownName, "no patching method is called 'saliency'"),
        ({"settings": {"edges": True}}, attrib.UnknownName, "no setting of relp is called 'edges'"),
        ({"model": CLASSIFIER}, attrib.NotApplicable, "has no language-model head"),
        ({"model": "nowhere"}, attrib.UnknownName, "no model is called 'nowhere'"),
        ({"filler": "good film"}, attrib.TargetError, "is not one token"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    catalogue: Catalogue, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as raised:
        patched(catalogue, **changes)
    assert "\n" not in str(raised.value)


def test_a_metric_equal_in_both_runs_is_told(catalogue: Catalogue) -> None:
    answer = patched(catalogue)
    same = answer.result.parts["metric_clean"]  # type: ignore[index]
    parts = {**(answer.result.parts or {}), "metric_corrupted": same}
    equal = PatchAnswer(answer.ask, answer.pair, attrib.Attribution(**{**vars(answer.result), "parts": parts}))
    shown = patching_markup.shown(equal, "share", "blue–red")
    assert "in both runs, so effects are no share of its change" in shown
    assert "in units of the metric" in shown  # the scale falls back to raw values


def test_prompts_of_different_length_are_aligned_and_can_be_filled_up(catalogue: Catalogue) -> None:
    model = catalogue[LANGUAGE]
    uneven = asked(clean="the film was not good at all", corrupted="the film was good at all")
    found = patching_pairs.look(model, uneven)
    assert found.uneven
    assert [column.clean for column in found.columns if column.differs] == ["not"]
    assert "fill up the shorter prompt" in patching_markup.aligned(found)
    answer = patched(catalogue, clean=uneven.clean, corrupted=uneven.corrupted, filler="the")
    assert answer.result.values.shape[2] == len(found.columns)
    assert not patching_pairs.look(model, asked(clean=uneven.clean, corrupted=uneven.corrupted, filler="the")).uneven


def test_positions_are_compared_where_lengths_agree() -> None:
    found = patching_pairs.alignment(("a", "b", "c"), ("b", "c", "a"))
    assert [column.differs for column in found] == [True, True, True]


def test_no_text_becomes_markup(catalogue: Catalogue, tmp_path: Path) -> None:
    answer = patching.verify(patched(catalogue), catalogue, 20, "", lambda *_: None)
    look = patching_pairs.look(catalogue[LANGUAGE], answer.ask)
    page = Path(patching_downloads.write_one(answer, "share", "blue–red", tmp_path, "html")).read_text()
    columns = tuple(map(patching_pairs.Column, (HOSTILE, "{{x}}`$"), ("<img src=x onerror=alert(1)>", None)))
    hostile = patching_markup.aligned(patching_pairs.Look(columns, [], [], HOSTILE))
    for shown in (
        patching_markup.aligned(look), patching_markup.shown(answer, "own", "blue–red"), hostile, page,
        patching_markup.verification(answer),
    ):  # fmt: skip
        assert "<script" not in shown
        assert "<img src=x" not in shown
    assert "&lt;script&gt;" in hostile
    assert not set("{}`$") & set(hostile)  # nothing for gradio's templates


def test_files_hold_what_was_shown(catalogue: Catalogue, tmp_path: Path) -> None:
    answer = patching.verify(patched(catalogue), catalogue, 4, "", lambda *_: None)
    paths = [Path(path) for path in patching_downloads.write(answer, "share", "blue–red", tmp_path)]
    names = [path.name for path in paths]
    assert names == [
        "patching.zip", "patching.html", "patching.png", "patching.heads.png", "patching.safetensors",
        "patching.true.safetensors", "patching.json", "patching.numbers.json",
    ]  # fmt: skip
    with zipfile.ZipFile(paths[0]) as archive:
        assert sorted(archive.namelist()) == sorted(names[1:])
    values = load_file(paths[names.index("patching.safetensors")])["values"]
    assert values == pytest.approx(answer.result.values.numpy())
    numbers = json.loads(paths[-1].read_text())
    assert len(numbers["verification"]["entries"]) == 4
    assert numbers["tokens"]["clean"][2] == "film"
    page = paths[1].read_text()
    assert "Pearson" in page
    assert "Strongest effects" in page
    assert "<img" not in page, "the heatmaps are there already"
    assert "http://" not in re.sub(r"data:[^\"']*", "", page).replace("http://www.w3.org", "")
    with pytest.raises(attrib.InputError, match="no file"):
        patching_downloads.write_one(answer, "share", "blue–red", tmp_path, "../x")


def test_a_link_comes_back(catalogue: Catalogue) -> None:
    ask = asked(
        answer=" 7", wrong=12, method="attribution_patching", kinds=("head", "q"), patterns=("neuron.1.0:4", "embed"),
        settings={"integrated": 3, "direction": "noising"}, filler="the",
    )  # fmt: skip
    view = PatchView(ask, "own", "purple–orange")
    query = dict(parse_qsl(patching_links.to_query(view)))
    assert patching_links.from_query(query, catalogue) == (view, [])


def test_a_link_that_asks_for_nonsense_says_so(catalogue: Catalogue) -> None:
    query = {"tab": "patching", "method": HOSTILE, "sites": "head,x", "model": "y", "scale": "z", "set.mode": "q"}
    view, problems = patching_links.from_query(query, catalogue)
    assert (view.ask.method, view.ask.kinds, view.how) == ("relp", ("head",), "share")
    assert len(problems) == 5


def test_kinds_of_sites_are_those_of_the_model(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    choices, chosen = kinds_for(catalogue[LANGUAGE], USUAL_KINDS)
    assert [kind for _, kind in choices] == [kind for kind in SITE_KINDS if kind not in NOT_USUAL]
    assert tuple(chosen) == USUAL_KINDS
    # of a model without attention
    monkeypatch.setattr(attrib, "site_kinds", lambda model: ("embed", "resid_post", "mixer_out"))
    choices, chosen = kinds_for(None, ("attn_out", "resid_post", "head"))
    assert [kind for _, kind in choices] == ["resid_post", "mixer_out", "embed"]
    assert chosen == ["mixer_out", "resid_post"]


def test_settings_are_those_of_the_method() -> None:
    made = method_of(asked(method="attribution_patching", kinds=("head",), settings={"integrated": "4"}))
    assert made == attrib.AttributionPatching(sites=("head.*.*",), integrated=4)


def test_examples_need_a_language_model(catalogue: Catalogue) -> None:
    with pytest.raises(attrib.NotApplicable):
        example(catalogue, CLASSIFIER, "ioi", 0)
    with pytest.raises(attrib.UnknownName):
        example(catalogue, LANGUAGE, "nothing", 0)
    with pytest.raises(attrib.UnsupportedModel):  # its tokenizer knows no names
        example(catalogue, LANGUAGE, "ioi", 0)
    assert model_of(catalogue, LANGUAGE).task == "next_token"


def test_the_circuit_is_the_librarys(catalogue: Catalogue, tmp_path: Path) -> None:
    answer = patching_circuit.find(patched(catalogue), catalogue, 20, lambda *_: None)
    model, target = catalogue[LANGUAGE], attrib.LogitDiff("good", "bad")
    edges = attrib.explain(model, answer.pair, attrib.RelP(edges=True), target)
    plain = attrib.circuit(model, answer.pair, edges, 20)
    assert answer.circuit is not None
    assert answer.circuit.links == plain.links
    shown = patching_circuit.shown(answer)
    assert f"faithfulness {plain.faithfulness:.3f}" in shown
    pictures = re.findall(r'<img class="[^"]*at-drawn[^"]*" src="data:image/png;base64,([^"]+)"', shown)
    grounds = [Image.open(io.BytesIO(base64.b64decode(picture))).getpixel((0, 0))[3] for picture in pictures]
    assert grounds == [0, 0], "the page lays them on its own ground, light or dark"
    files = patching_downloads.write(answer, "share", "blue–red", tmp_path)
    assert {"circuit.json", "circuit.graphml"} <= {Path(file).name for file in files}
    with pytest.raises(attrib.InputError, match="from 1 to"):
        patching_circuit.find(answer, catalogue, 0, lambda *_: None)
