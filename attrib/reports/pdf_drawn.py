"""Text of scripts that join their letters or run from right to left, drawn as a picture: reportlab does neither."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont, features
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.utils import ImageReader
from reportlab.platypus import Flowable

from attrib.render.tokens import direction

SHARPNESS = 3  # pixels per point


def needs_drawing(text: str) -> bool:
    """Whether the text has letters that run from right to left, and Pillow can lay them out."""
    return any(unicodedata.bidirectional(c) in ("R", "AL") for c in text) and bool(features.check("raqm"))


class Drawn(Flowable):  # type: ignore[misc]
    """A paragraph of plain text in the given style, broken between words, as black on white."""

    def __init__(self, text: str, style: ParagraphStyle) -> None:
        super().__init__()
        self.text, self.style, self.keepWithNext = text, style, getattr(style, "keepWithNext", 0)
        name = "DejaVuSans-Bold.ttf" if style.fontName.endswith("Bold") else "DejaVuSans.ttf"
        path = Path(mpl.get_data_path()) / "fonts" / "ttf" / name
        self.font = ImageFont.truetype(path, round(style.fontSize * SHARPNESS), layout_engine=ImageFont.Layout.RAQM)
        self.lines: list[str] = []

    def wrap(self, width: float, height: float) -> tuple[float, float]:
        self.width, self.lines = width, _lines(self.text, self.font, width * SHARPNESS)
        self.height = len(self.lines) * self.style.leading
        return width, self.height

    def draw(self) -> None:
        size = (max(1, round(self.width * SHARPNESS)), max(1, round(self.height * SHARPNESS)))
        picture = Image.new("RGB", size, "white")
        pen: Any = ImageDraw.Draw(picture)
        way = direction([self.text])
        for n, line in enumerate(self.lines):
            x = size[0] - self.font.getlength(line) if way == "rtl" else 0.0
            y = round(n * self.style.leading * SHARPNESS)
            pen.text((x, y), line, fill="black", font=self.font, direction=way)
        self.canv.drawImage(ImageReader(picture), 0, 0, self.width, self.height)


def _lines(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
        while font.getlength(lines[-1]) > width and len(lines[-1]) > 1:
            whole = lines.pop()
            fits = next(n for n in range(len(whole) - 1, 0, -1) if n == 1 or font.getlength(whole[:n]) <= width)
            lines += [whole[:fits], whole[fits:]]
    return lines
