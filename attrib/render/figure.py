"""A matplotlib figure of a result: photo, heatmap over it and a labelled colour bar, one row per sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure  # not pyplot: no global state, no window

from attrib.attribution import Attribution, labels_of
from attrib.errors import InputError
from attrib.render.overlay import over, verdict
from attrib.render.scale import OWN, Display, Scale, drawn_maps, scales

MAX_ROWS = 8


def figure(attribution: Attribution, display: Display = OWN) -> Figure:
    """Raises InputError for results that are not maps over a picture."""
    if attribution.kind not in ("input", "layer"):
        raise InputError(f"a {attribution.kind} attribution has no picture to plot; read .tokens() or .values")
    rows = min(len(attribution), MAX_ROWS)
    maps = drawn_maps(list(attribution.heatmap()[:rows]), display)
    drawn = scales(maps, [attribution.signed] * rows, display)
    columns = 1 if attribution.pictures is None else 2
    sheet = Figure(figsize=(3.4 * columns + 0.8, 3.5 * rows), layout="constrained")
    axes = sheet.subplots(rows, columns, squeeze=False)
    names = labels_of(attribution.target)
    for row, (values, scale) in enumerate(zip(maps, drawn, strict=True)):
        photo = None if attribution.pictures is None else attribution.pictures[row]
        if photo is not None:
            _show(axes[row][0], photo, names[row])
        picture = over(values, scale, photo, display)
        _show(axes[row][-1], picture, f"{attribution.method}: {float(attribution.score[row]):.2f}")
        if words := verdict(values):
            axes[row][-1].set_xlabel(words)
        _bar(sheet, axes[row][-1], scale)
    return sheet


def _show(axis: Any, picture: Any, title: str) -> None:
    axis.imshow(np.asarray(picture))
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])


def _bar(sheet: Figure, axis: Any, scale: Scale) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    mappable = ScalarMappable(Normalize(scale.low, scale.limit), ListedColormap(scale.table / 255.0))
    bar = sheet.colorbar(mappable, ax=axis, shrink=0.8)
    bar.set_label("relevance" + (f" ({scale.unit.strip()})" if scale.unit else ", raw values"), fontsize=8)
    bar.ax.tick_params(labelsize=8)
