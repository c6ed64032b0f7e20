"""The PDF as a reader gets it: its text, its pages as pictures, its size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pypdfium2
import pytest

from attrib.reports import Report
from attrib.reports.pdf import spaced
from attrib.reports.pdf_drawn import needs_drawing
from attrib.reports.pdf_parts import document, paragraph, printable, table
from tests.app.tiny_text import classifier
from tests.reports.conftest import write_pictures


def text_of(content: bytes) -> str:
    pdf = pypdfium2.PdfDocument(content)
    try:
        return "\n".join(page.get_textpage().get_text_bounded() for page in pdf)
    finally:
        pdf.close()


def pdf_of(report: Report) -> bytes:
    return (report.folder / "report.pdf").read_bytes()


def test_it_says_what_there_is(make: Callable[..., Report], tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", ["<b>bold</b>&.png".replace("/", "∕"), "日本.png", "plain.png"])
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    text = text_of(pdf_of(make(tmp_path / "in", targets=["item"])))
    assert "Report on tiny" in text
    assert "<b>bold<∕b>&.png" in text.replace("\n", "").replace("\r", "")  # shown, not obeyed
    assert "‹65E5›‹672C›.png" in text
    assert "What failed" in text and "broken.png" in text
    assert "Do the methods agree?" in text


def test_items_are_bounded_and_that_is_said(make: Callable[..., Report], photos_of_noise: Path) -> None:
    text = text_of(pdf_of(make(photos_of_noise, targets=["item"], pdf_items=3)))
    assert "3 of 7 items, evenly spaced" in text
    assert [f"{i}.png" in text for i in (0, 3, 6)] == [True] * 3


def test_texts_are_in_it(make: Callable[..., Report]) -> None:
    content = pdf_of(make(["the film was good", "الفيلم bad"], models=classifier(), targets=["item"]))
    assert "Over all items" in text_of(content)
    pdf = pypdfium2.PdfDocument(content)
    pages = [np.asarray(page.render(scale=0.5).to_pil().convert("RGB")) for page in pdf]
    pdf.close()
    assert max(int((p.max(2) - p.min(2) > 60).sum()) for p in pages) > 100  # coloured words


@pytest.mark.parametrize(("total", "most", "found"), [(0, 3, []), (2, 3, [0, 1]), (10, 3, [0, 4, 9]), (9, 1, [0])])
def test_spaced(total: int, most: int, found: list[int]) -> None:
    assert spaced(total, most) == found


def test_any_text_can_be_printed() -> None:
    odd = "".join(map(chr, [0, 7, 0x202E, 0x65E5, 0x1F98A, 0xD800])) + "<para>&amp;</para><img src='/etc/passwd'/>"
    assert "‹65E5›" in printable(odd)
    content = document("Title <b>", [paragraph(odd, most=2000), table([["a", odd], [odd, "x" * 3000]], (100, 100))])
    assert "<para>&amp;</para><img src='/etc/passwd'/>" in text_of(content).replace("\r\n", "")
    assert content == document(
        "Title <b>", [paragraph(odd, most=2000), table([["a", odd], [odd, "x" * 3000]], (100, 100))]
    )


def test_letters_that_join_and_run_from_right_to_left_are_laid_out() -> None:
    def ink(text: str) -> np.ndarray:
        pdf = pypdfium2.PdfDocument(document("t", [paragraph(text, "h1")]))
        page = np.asarray(pdf[0].render(scale=3).to_pil().convert("L"), dtype=float)
        pdf.close()
        rows, columns = np.nonzero(page[:2300] < 128)
        return page[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    joined, apart = ink("\u0628\u0628\u0628"), ink("\u0628\u200c\u0628\u200c\u0628")
    assert joined.shape[1] < 0.8 * apart.shape[1]  # beh, beh, beh: joined they are narrower
    assert needs_drawing("abc \u05d0") and not needs_drawing("abc é 語")
    long = document(
        "t", [paragraph("\u0627\u0644\u0641\u064a\u0644\u0645 " * 200, most=2000), table([["\u05d0" * 500]], (80,))]
    )
    assert long.startswith(b"%PDF")
