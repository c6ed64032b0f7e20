"""Coloured tokens as a picture (PIL), for figures and downloads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from attrib.render.overlay import annotated
from attrib.render.scale import Scale
from attrib.render.tokens import Piece, direction, ink, readable

MAX_LINES = 400  # a picture has an end; what is beyond it is said

# after DejaVu Sans, which is always there: the fonts of other scripts that many systems have
_FURTHER = (
    "NotoSansCJK-Regular.ttc", "NotoSansArabic-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "NotoEmoji-Regular.ttf",
    "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf", "seguisym.ttf",
)  # fmt: skip


def token_picture(shown: Sequence[Piece], scale: Scale, width: int = 900, size: int = 20) -> Image.Image:
    """The pieces on lines of `width` pixels, in their colours; text that runs right to left starts at the right."""
    fonts = fonts_of(size)
    drawn = [fitting(readable(p.text), fonts, width - 20) for p in shown]
    lines, left_out = _lines([font.getlength(text) for text, font in drawn], shown, width - 20)
    step = round(size * 1.7)
    picture = Image.new("RGB", (width, step * (len(lines) + bool(left_out)) + 12), "white")
    draw = ImageDraw.Draw(picture)
    backs = scale.colour(np.array([p.value for p in shown], dtype=float)).tolist()
    mirrored = direction([p.text for p in shown]) == "rtl"
    for row, line in enumerate(lines):
        for index, offset, length in line:
            text, font = drawn[index]
            x = width - 10 - offset - length if mirrored else 10 + offset
            y = 6 + row * step
            draw.rectangle((x, y, x + length - 1, y + step - 6), fill=tuple(backs[index]))
            draw.text((x, y + 2), text, fill=ink(backs[index]), font=font)
    if left_out:
        draw.text((10, 6 + len(lines) * step), f"… {left_out} more tokens do not fit", fill="black", font=fonts[0])
    return picture


def captioned(shown: Sequence[Piece], scale: Scale, title: str) -> Image.Image:
    """The same with a title and the labelled colour bar: it can stand alone in a slide."""
    return annotated(token_picture(shown, scale), scale, title)


def _lines(
    lengths: Sequence[float], shown: Sequence[Piece], width: float
) -> tuple[list[list[tuple[int, float, float]]], int]:
    """(index, offset, length) of the pieces of each line, and how many pieces were left out."""
    lines: list[list[tuple[int, float, float]]] = [[]]
    x = 0.0
    for index, length in enumerate(lengths):
        if lines[-1] and (x + length > width or "\n" in shown[index - 1].text):
            if len(lines) == MAX_LINES:
                return lines, len(lengths) - index
            lines.append([])
            x = 0.0
        x += 6 if shown[index].gap and lines[-1] else 0
        lines[-1].append((index, x, length))
        x += length + 2
    return lines, 0


def fitting(text: str, fonts: Sequence[ImageFont.FreeTypeFont], width: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text and the first font that has all of it; characters that no font has as their code points."""
    for font in fonts:
        if all(ord(c) in _covered(str(font.path)) for c in text):
            break
    else:
        font = fonts[0]
        known = _covered(str(font.path))
        text = "".join(c if ord(c) in known else f"‹{ord(c):X}›" for c in text)
    while len(text) > 1 and font.getlength(text) > width:
        text = text[: len(text) * 9 // 10 - 1] + "…"
    return text, font


def fonts_of(size: int) -> list[ImageFont.FreeTypeFont]:
    import matplotlib as mpl

    found = [ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)]
    for name in _FURTHER:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return found


@cache
def _covered(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())
