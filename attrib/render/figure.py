"""A matplotlib figure of a result: photo, heatmap over it and a labelled colour bar, one row per sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure  # not pyplot: no global state, no window

from attrib.attribution import Attribution, labels_of
from attrib.errors import InputError
from attrib.render.overlay import over, verdict
from attrib.render.scale import OWN, Display, Scale, drawn_maps, is_signed, scales
from attrib.render.sites import sites_figure
from attrib.render.token_picture import token_picture
from attrib.render.tokens import is_text, pieces, readable, token_scales

MAX_ROWS = 8


def figure(attribution: Attribution, display: Display = OWN, **options: Any) -> Figure:
    """Raises InputError for results that are neither maps over a picture nor tokens. options: of `render.sites`."""
    if attribution.kind in ("sites", "edges"):
        return sites_figure(attribution, display, **options)
    if options:
        raise InputError(f"an attribution of kind {attribution.kind} is plotted without {', '.join(sorted(options))}")
    if is_text(attribution):
        return _token_figure(attribution, display)
    if attribution.kind not in ("input", "layer"):
        raise InputError(f"an attribution of kind {attribution.kind} has no picture to plot; read .tokens() or .values")
    rows = min(len(attribution), MAX_ROWS)
    maps = drawn_maps(list(attribution.heatmap()[:rows]), display)
    drawn = scales(maps, [is_signed(attribution)] * rows, display)
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


def _token_figure(attribution: Attribution, display: Display) -> Figure:
    rows = min(len(attribution), MAX_ROWS)
    found = token_scales([(attribution, i) for i in range(rows)], display)
    pictures = [token_picture(pieces(attribution, i, display), found[i]) for i in range(rows)]
    heights = [picture.height / picture.width * 7.5 + 0.6 for picture in pictures]
    sheet = Figure(figsize=(9.0, sum(heights)), layout="constrained")
    axes = sheet.subplots(rows, 1, squeeze=False, height_ratios=heights)
    names = labels_of(attribution.target)
    for row, picture in enumerate(pictures):
        axis = axes[row][0]
        # a label is any text: $ would start a formula
        title = f"{readable(names[row])}, {attribution.method}: {float(attribution.score[row]):.2f}"
        _show(axis, picture, title.replace("$", "\\$"))
        axis.set_frame_on(False)
        _bar(sheet, axis, found[row])
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
