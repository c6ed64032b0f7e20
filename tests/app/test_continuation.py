"""A continuation: every generated token explained by all before it, as handlers and links see it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

import attrib
from app import downloads, explaining, markup, text_links
from app.answers import Answer
from app.api import document
from app.catalogue import Catalogue
from app.displays import USUAL_TEXT
from app.questions import MOST_NEW, Ask
from app.runs import Run
from app.text_links import TextView
from attrib.models import MODELS
from tests.app import tiny_text
from tests.app.tiny_text import CLASSIFIER, LANGUAGE

PROMPT = "the capital of france is"


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    for name in (CLASSIFIER, LANGUAGE):
        monkeypatch.setitem(MODELS, name, None)  # type: ignore[arg-type]  # so that it is taken out again
    tiny_text.offer()
    return Catalogue((CLASSIFIER, LANGUAGE))


def run(catalogue: Catalogue, **changes: Any) -> Answer:
    fields: dict[str, Any] = {"photo": "", "model": LANGUAGE, "methods": (("lrp", {}), ("saliency", {})),
                              "text": PROMPT, "new_tokens": 3, "continuation": " paris <b>"}  # fmt: skip
    return list(explaining.explain(Ask(**{**fields, **changes}), catalogue, Run(100)))[-1].answer


def test_each_row_is_what_the_library_says_of_that_token(catalogue: Catalogue) -> None:
    answer = run(catalogue)
    assert answer.continued
    expected = attrib.explain_generation(catalogue[LANGUAGE], PROMPT, "saliency", " paris <b>")
    found = answer.results["saliency"]
    assert len(found) == 3  # as many as were asked for
    for i in range(3):
        for (token, value), (other, wanted) in zip(found.tokens(i), expected.tokens(i), strict=True):
            assert token == other
            assert value == pytest.approx(wanted, abs=1e-6)
    assert len(run(catalogue, continuation="", new_tokens=2).results["lrp"]) <= 2  # what the model writes


def test_the_map_is_triangular_and_its_rows_can_be_chosen(catalogue: Catalogue) -> None:
    shown = markup.gallery(run(catalogue), USUAL_TEXT)
    tables = re.findall(r"<table>.*?</table>", shown, re.S)
    assert len(tables) == 2
    cells = [row.count("<td style=") for row in tables[0].split("<tr")[2:]]
    assert cells == [cells[0], cells[0] + 1, cells[0] + 2]
    assert tables[0].count('aria-pressed="true"') == 1
    assert tables[0].count("<button") == 3
    assert "<b>" not in shown
    assert "<h2>Why “paris &lt; b”?</h2>" in shown  # this tokenizer's pieces have no spaces of their own
    assert all('aria-label="' in cell for cell in re.findall(r"<td style=[^>]*>", tables[0]))


def test_files_hold_the_map_and_every_row(catalogue: Catalogue, tmp_path: Path) -> None:
    answer = run(catalogue)
    paths = {Path(p).name: Path(p) for p in downloads.write(answer, USUAL_TEXT, tmp_path)}
    page = paths["text.html"].read_text()
    assert page.count("<table>") == 2
    assert page.count("<article") == 2 * 3
    assert len(re.findall(r"<h3>[^<]*: token 2, “", page)) == 2
    assert "<button" not in page
    from safetensors.torch import load_file

    assert len(load_file(paths["text.lrp.safetensors"])["values"]) == 3
    one = downloads.write_one(answer, USUAL_TEXT, tmp_path, "saliency.png")
    assert Path(one).read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(attrib.InputError, match="no file"):
        downloads.write_one(answer, USUAL_TEXT, tmp_path, "../lrp.png")


def test_a_program_reads_a_row_for_each_token(catalogue: Catalogue) -> None:
    result = document(run(catalogue))["results"]["lrp"]
    assert [len(row["tokens"]) for row in result["rows"]] == sorted(len(row["tokens"]) for row in result["rows"])
    assert len(result["rows"]) == 3
    assert result["settings"]["preset"] == "attn_lrp"
    for row in result["rows"]:
        assert sum(row["ledger"].values()) == pytest.approx(row["score"], abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": CLASSIFIER}, attrib.InputError, "needs a language model"),
        ({"new_tokens": MOST_NEW + 1}, attrib.InputError, f"from 1 to {MOST_NEW}"),
        ({"new_tokens": -1}, attrib.InputError, "from 1"),
        ({"versus": "paris london"}, attrib.TargetError, "not one token"),
        ({"text": "  "}, attrib.InputError, "write or paste"),
    ],
)
def test_a_wrong_question_is_one_clear_error(
    catalogue: Catalogue, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(catalogue, **changes)


def test_a_map_that_no_page_can_hold_is_refused(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.questions.MOST_CELLS", 10)
    with pytest.raises(attrib.InputError, match="too large to show"):
        run(catalogue)


def test_a_link_carries_it() -> None:
    view = TextView(text=PROMPT, model=LANGUAGE, methods=("lrp",), new_tokens=5, continuation=" paris & more")
    assert text_links.from_query(dict(parse_qsl(text_links.to_query(view))), (LANGUAGE,)) == (view, [])
    for query in ("write=99", "write=x", "write=-1"):
        assert len(text_links.from_query(dict(parse_qsl(query)), (LANGUAGE,))[1]) == 1
