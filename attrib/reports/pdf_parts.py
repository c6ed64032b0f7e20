"""What the PDF is made of: fonts, paragraphs, tables and pictures. Text is taken as text, whatever is in it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from PIL import Image as Pixels
from reportlab import rl_config
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table

from attrib.render import Scale
from attrib.reports.pages import short
from attrib.reports.pdf_drawn import Drawn, needs_drawing

WIDTH = A4[0] - 36 * mm
REGULAR, BOLD = "AttribSans", "AttribSans-Bold"
GREY, LINE, AMBER, RED = (colors.HexColor(c) for c in ("#555555", "#bbbbbb", "#d97706", "#b91c1c"))
_SIZES = {"h1": 18, "h2": 13, "h3": 10.5, "text": 9, "small": 7.5, "cell": 8, "warning": 9, "error": 9}
MAX_TEXT = 600
_ONE_AT_A_TIME = threading.Lock()


def paragraph(text: str, style: str = "text", most: int = MAX_TEXT) -> Flowable:
    """A paragraph of plain text: markup in it is shown, not obeyed; what the font lacks is told by its code point."""
    shown = printable(short(text, most))
    return Drawn(shown, _style(style)) if needs_drawing(shown) else Paragraph(escape(shown), _style(style))


def printable(text: str) -> str:
    """The text with characters that the font has not as ‹code points›."""
    known = _known()
    return "".join(c if ord(c) in known else f"‹{ord(c):X}›" for c in text)


def picture(image: Pixels.Image | bytes, width: float) -> Image:
    """A picture `width` points wide; pixels become a JPEG."""
    if isinstance(image, bytes):
        content = image
    else:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=88, subsampling=0)
        content = buffer.getvalue()
    with Pixels.open(io.BytesIO(content)) as seen:
        ratio = seen.height / seen.width
    return Image(io.BytesIO(content), width, width * ratio, hAlign="LEFT")


def table(rows: Sequence[Sequence[Any]], widths: Sequence[float] | None = None, head: bool = True) -> Table:
    """Cells of text or flowables; the head is repeated on every page."""
    cells = [
        [c if isinstance(c, (Flowable, list)) else paragraph(str(c), "head" if head and not i else "cell") for c in row]
        for i, row in enumerate(rows)
    ]
    made = Table(cells, colWidths=widths, repeatRows=int(head), hAlign="LEFT")
    made.setStyle([
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 3),
        ("RIGHTPADDING", (0, 0), (-1, -1), 3),
        ("TOPPADDING", (0, 0), (-1, -1), 2.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
    ])  # fmt: skip
    return made


def grid(cells: Sequence[Flowable | list[Flowable]], columns: int) -> list[Flowable]:
    """Cells side by side, without lines; rows may be parted at the end of a page."""
    width = WIDTH / columns
    found: list[Flowable] = []
    for start in range(0, len(cells), columns):
        row = list(cells[start : start + columns])
        made = Table([[*row, *[""] * (columns - len(row))]], colWidths=[width] * columns, hAlign="LEFT")
        made.setStyle([
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("RIGHTPADDING", (0, 0), (-1, -1), 6),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
        ])  # fmt: skip
        found.append(made)
    return found


def scale_bar(scale: Scale, width: float) -> list[Flowable]:
    """The colours of a scale with its ends below."""
    strip = Pixels.fromarray(scale.table[None]).resize((256, 8))
    low, high = scale.ends
    ends = Table([[paragraph(low, "small"), paragraph(high, "right")]], colWidths=[width / 2] * 2, hAlign="LEFT")
    ends.setStyle([("LEFTPADDING", (0, 0), (-1, -1), 0), ("RIGHTPADDING", (0, 0), (-1, -1), 0),
                   ("TOPPADDING", (0, 0), (-1, -1), 0), ("BOTTOMPADDING", (0, 0), (-1, -1), 0)])  # fmt: skip
    return [picture(strip, width), ends]


def together(parts: Sequence[Flowable]) -> Flowable:
    """Kept on one page where they fit on one."""
    return KeepTogether(list(parts))


def gap(points: float = 6) -> Flowable:
    return Spacer(1, points)


def document(title: str, story: Sequence[Flowable]) -> bytes:
    """The PDF. The same story gives the same bytes."""
    buffer = io.BytesIO()
    made = SimpleDocTemplate(
        buffer, pagesize=A4, leftMargin=18 * mm, rightMargin=18 * mm, topMargin=16 * mm, bottomMargin=18 * mm,
        title=printable(title), author="attrib", invariant=1, lang="en",
    )  # fmt: skip

    def footer(canvas: Any, doc: Any) -> None:
        canvas.setFont(REGULAR, 7.5)
        canvas.setFillColor(GREY)
        canvas.drawString(18 * mm, 10 * mm, printable(short(title, 100)))
        canvas.drawRightString(A4[0] - 18 * mm, 10 * mm, str(doc.page))

    with _plain_streams():
        made.build(list(story), onFirstPage=footer, onLaterPages=footer)
    return buffer.getvalue()


@contextmanager
def _plain_streams() -> Iterator[None]:
    """Pictures as they are, not as text: a fifth smaller, and reportlab writes the text in Python, slowly."""
    with _ONE_AT_A_TIME:  # it is a setting of the process
        before, rl_config.useA85 = rl_config.useA85, 0
        try:
            yield
        finally:
            rl_config.useA85 = before


@cache
def _known() -> frozenset[int]:
    _register()
    return frozenset(pdfmetrics.getFont(REGULAR).face.charToGlyph)


@cache
def _register() -> None:
    import matplotlib as mpl  # its wheel ships DejaVu, whose licence lets it be embedded

    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    pdfmetrics.registerFont(TTFont(REGULAR, folder / "DejaVuSans.ttf"))
    pdfmetrics.registerFont(TTFont(BOLD, folder / "DejaVuSans-Bold.ttf"))


@cache
def _style(name: str) -> ParagraphStyle:
    _register()
    size = _SIZES.get(name, 8 if name == "head" else 7.5)
    style = ParagraphStyle(name, fontName=REGULAR, fontSize=size, leading=size * 1.32, spaceAfter=2, splitLongWords=1)
    if name in ("h1", "h2", "h3", "head"):
        style.fontName = BOLD
    if name in ("h1", "h2", "h3"):
        style.spaceBefore, style.spaceAfter, style.keepWithNext = size * 0.9, size * 0.35, 1
    if name in ("small", "right"):
        style.textColor, style.alignment = GREY, 2 if name == "right" else 0
    if name in ("warning", "error"):
        style.borderColor = AMBER if name == "warning" else RED
        style.borderWidth, style.borderPadding, style.spaceBefore, style.spaceAfter = 0.8, 5, 12, 10
        style.leftIndent = style.rightIndent = 6
    return style
