"""A continuation as one triangular map: a row for each generated token, a column for each token it could read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image, ImageDraw

from attrib.attribution import Attribution, labels_of
from attrib.render.overlay import annotated
from attrib.render.scale import Display, Scale
from attrib.render.templating import rendered
from attrib.render.token_picture import fitting, fonts_of
from attrib.render.tokens import PARTS, has_parts, ink, part_of, readable, token_scales, told

_CELL, _LABEL, _TEXT = 26, 130, 15  # pixels of the picture


def triangle(a: Attribution, display: Display, title: str = "", chosen: int | None = None) -> Markup:
    """An HTML table. Its rows begin with buttons (data-index: the row) that whoever shows the page may answer.

    a: from `explain_generation`. chosen: the row whose button is pressed; None: rows have no buttons.
    """
    columns, rows = _columns(a), []
    for i, (name, scale) in enumerate(zip(_names(a), _scales(a, display), strict=True)):
        values = _row(a, i, display)
        cells = [_cell(value, scale, name, column) for value, column in zip(values, columns, strict=False)]
        rows.append(
            {"index": i, "label": name, "pressed": i == chosen, "cells": cells, "empty": len(columns) - len(values)}
        )
    title = _titled(title, a, display)
    return Markup(rendered("triangle.html", title=title, columns=columns, rows=rows, choosable=chosen is not None))


def triangle_picture(a: Attribution, display: Display, title: str) -> Image.Image:
    """The same as a picture, with the labelled colour bar of its first row."""
    columns, drawn = _columns(a), _scales(a, display)
    picture = Image.new("RGB", (_LABEL + _CELL * len(columns), _LABEL + _CELL * len(drawn)), "white")
    draw = ImageDraw.Draw(picture)
    for i, (name, scale) in enumerate(zip(_names(a), drawn, strict=True)):
        top = _LABEL + i * _CELL
        text, font = fitting(name, fonts_of(_TEXT), _LABEL - 10)
        draw.text((_LABEL - 6 - font.getlength(text), top + 4), text, fill="black", font=font)
        for j, colour in enumerate(scale.colour(_row(a, i, display)).tolist()):
            left = _LABEL + j * _CELL
            draw.rectangle((left, top, left + _CELL - 2, top + _CELL - 2), fill=tuple(colour), outline="#cccccc")
    for j, column in enumerate(columns):
        picture.paste(_upright(column), (_LABEL + j * _CELL, 0))
    return annotated(picture, drawn[0], _titled(title, a, display))


def rather_than(a: Attribution) -> str:
    """The contrast of all rows, "rather than John"; empty where they share none."""
    shared = {target.get("versus_label") for target in a.target}
    versus = shared.pop() if len(shared) == 1 else None
    return "" if versus is None else f"rather than {readable(str(versus)).strip()}"


def _upright(column: str) -> Image.Image:
    text, font = fitting(column, fonts_of(_TEXT), _LABEL - 10)
    written = Image.new("RGB", (_LABEL, _CELL), "white")
    ImageDraw.Draw(written).text((6, 4), text, fill="black", font=font)
    return written.rotate(90, expand=True)


def _titled(title: str, a: Attribution, display: Display) -> str:
    contrast, alone = rather_than(a), display.part != "both" and has_parts(a)
    title = f"{title}: each token {contrast}" if contrast else title
    return f"{title}, {PARTS[display.part]}" if alone else title


def _names(a: Attribution) -> list[str]:
    """The generated tokens, with the contrast of each where the caption has none for all."""
    names = [str(target.get("label", "")) for target in a.target] if rather_than(a) else labels_of(a.target)
    return [readable(name) for name in names]


def _columns(a: Attribution) -> list[str]:
    """The prompt and every generated token but the last, which nothing reads."""
    texts: Sequence[str] = () if a.token_texts is None else a.token_texts[len(a) - 1]
    return [readable(text) for text in texts]


def _row(a: Attribution, i: int, display: Display) -> np.ndarray:
    return part_of(a, display.part)[i, : 0 if a.token_texts is None else len(a.token_texts[i])]


def _scales(a: Attribution, display: Display) -> list[Scale]:
    return token_scales([(a, i) for i in range(len(a))], display)


def _cell(value: float, scale: Scale, row: str, column: str) -> dict[str, Any]:
    r, g, b = scale.colour(np.array([value]))[0].tolist()
    return {
        "style": f"background:#{r:02x}{g:02x}{b:02x};color:{ink((r, g, b))}",
        "value": f"{row} from {column}: {told(float(value), scale)}",
    }
