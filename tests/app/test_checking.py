"""Evidence in the app, without a browser: what costs nothing is there at once, what is dear is asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import attrib
from app import api, checking, downloads, explaining, markup
from app.answers import Answer, Step
from app.catalogue import Catalogue
from app.questions import Ask
from app.runs import Run, Runs
from attrib.models import MODELS
from attrib.render import Display
from tests.app import tiny_text
from tests.app.tiny_text import CLASSIFIER, LANGUAGE

TEXT = "the film was not good at all <script>alert(1)</script>"
PHOTO_MODEL = "squeezenet1_1"


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    for name in (CLASSIFIER, LANGUAGE):
        monkeypatch.setitem(MODELS, name, None)  # type: ignore[arg-type]  # so that it is taken out again
    tiny_text.offer()
    return Catalogue((CLASSIFIER, LANGUAGE, PHOTO_MODEL))


def explained(catalogue: Catalogue, **changes: Any) -> Answer:
    methods = (("lrp", {}), ("input_x_gradient", {}))
    fields: dict[str, Any] = {"photo": "", "model": CLASSIFIER, "methods": methods, "text": TEXT}
    return list(explaining.explain(Ask(**{**fields, **changes}), catalogue, Run(100)))[-1].answer


def checked(answer: Answer, name: str, catalogue: Catalogue) -> list[Step]:
    return list(checking.check(answer, name, catalogue, Run(100)))


def passes(monkeypatch: pytest.MonkeyPatch, module: Any) -> dict[str, int]:
    """Counts forwards of the module's class, twins included, and backwards."""
    counts = {"forward": 0, "backward": 0}

    def counted(owner: Any, name: str, kind: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **named: Any) -> Any:
            counts[kind] += 1
            return original(*args, **named)

        monkeypatch.setattr(owner, name, call)

    counted(type(module), "forward", "forward")
    counted(torch.autograd, "grad", "backward")
    counted(torch.autograd, "backward", "backward")
    return counts


def test_what_is_always_shown_adds_at_most_one_pass(
    cheetah: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = catalogue[PHOTO_MODEL]
    names = ("lrp", "guided_backprop", "grad_cam")
    for name in names:
        attrib.explain(model, str(cheetah), name, 293)  # what is looked for once in a model, such as the last layer
    counts = passes(monkeypatch, model.module)
    model.predict(str(cheetah), k=1)  # the page's own question: is the photo any good
    for name in names:
        attrib.explain(model, str(cheetah), name, 293)
    alone = dict(counts)
    counts.update(forward=0, backward=0)
    asked = {"photo": str(cheetah), "model": PHOTO_MODEL, "text": None, "target": 293}
    answer = explained(catalogue, methods=tuple((name, {}) for name in names), **asked)
    assert markup.gallery(answer, Display()).count('class="at-light') == 4 * len(names)
    assert alone["forward"] >= len(names)
    assert alone["backward"] >= len(names)
    assert counts["forward"] - alone["forward"] <= len(names)
    assert counts["backward"] - alone["backward"] <= len(names)
    assert counts == alone  # in fact nothing at all


def test_the_cost_is_told_before_and_the_button_goes_when_all_is_known(catalogue: Catalogue) -> None:
    answer = explained(catalogue)
    page = markup.gallery(answer, Display())
    assert page.count("data-check=") == 2
    assert re.search(r"costs 361 forwards and 10 more explanations of \d+\.\d+ s each", page)
    assert "data-check=" not in markup.gallery(answer, Display(), checks=False)  # while something runs
    last = checked(answer, "lrp", catalogue)[-1]
    assert last.done
    assert "checked" in last.message
    page = markup.gallery(last.answer, Display())
    assert re.findall(r'data-check="(.*?)"', page) == ["input_x_gradient"]
    assert 'class="at-plot"' in page


def test_a_check_says_what_the_library_says(catalogue: Catalogue) -> None:
    answer = explained(catalogue)
    found = checked(answer, "lrp", catalogue)[-1].answer.evidence["lrp"]
    model = catalogue[CLASSIFIER]
    method = attrib.LRP("attn_lrp", positions=True)
    expected = attrib.check(model, TEXT, attrib.explain(model, TEXT, method), method)
    assert found.document() == expected.document()
    assert answer.evidence["lrp"].light("depends on the class").verdict == "not checked"  # the old one is as it was


def test_a_check_can_be_cancelled_and_what_was_there_stays(catalogue: Catalogue) -> None:
    answer, runs = explained(catalogue), Runs(100)
    run = runs.begin("tab")
    work = checking.check(answer, "lrp", catalogue, run)
    runs.cancel("tab")
    with pytest.raises(attrib.Cancelled):
        list(work)
    assert markup.gallery(answer, Display()).count("data-check=") == 2


def test_what_cannot_be_checked_is_said(catalogue: Catalogue, cheetah: Path) -> None:
    asked = {"model": LANGUAGE, "text": "the capital of france", "new_tokens": 2, "continuation": " is paris"}
    written = explained(catalogue, methods=(("lrp", {}),), **asked)
    photo = {"photo": str(cheetah), "model": PHOTO_MODEL, "text": None, "methods": (("saliency", {}),)}
    subtracted = explained(catalogue, target=293, versus=281, versus_by="maps", **photo)
    for answer, words in ((written, "generated token"), (subtracted, "difference of two maps")):
        page = markup.gallery(answer, Display())
        assert words in page
        assert "data-check=" not in page
        with pytest.raises(attrib.InputError, match=words):
            checked(answer, next(iter(answer.results)), catalogue)
    for name in ("saliency", HOSTILE):
        with pytest.raises(attrib.InputError, match="no map of"):
            checked(explained(catalogue), name, catalogue)


HOSTILE = '"><img src=x onerror=alert(1)>'


def test_a_photo_that_is_gone_is_one_sentence_without_a_path(
    cheetah: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    copy = tmp_path / "secret" / "copy.jpg"
    copy.parent.mkdir()
    copy.write_bytes(cheetah.read_bytes())
    answer = explained(catalogue, photo=str(copy), model=PHOTO_MODEL, text=None, methods=(("input_x_gradient", {}),))
    copy.unlink()
    with pytest.raises(attrib.InputError, match=r"copy\.jpg") as caught:
        checked(answer, "input_x_gradient", catalogue)
    assert "secret" not in str(caught.value)


def test_files_and_programs_get_the_evidence_too(catalogue: Catalogue, tmp_path: Path) -> None:
    answer = checked(explained(catalogue), "lrp", catalogue)[-1].answer
    page = Path(downloads.write_one(answer, Display(), tmp_path, "html")).read_text()
    assert 'class="at-plot"' in page
    assert page.count("<figure>") == 4
    assert "<script" not in page
    assert "data-check=" not in page
    told = api.document(answer)["results"]["lrp"]["evidence"]
    assert [light["name"] for light in told["lights"][0]] == [light.name for light in answer.evidence["lrp"].lights[0]]


def test_an_answer_of_which_nothing_is_known_has_no_lights(catalogue: Catalogue) -> None:
    answer = replace(explained(catalogue), evidence={}, ask=None)
    page = markup.gallery(answer, Display())
    assert "at-light" not in page
    assert "data-check=" not in page
