"""Effects of sites as heatmaps in HTML: layers × tokens, heads as layers × heads, on one labelled scale."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import attrib
from app.patching import PatchAnswer, kind_title
from app.patching import of_kind as only
from attrib.render import Display, Scale, readable, scales
from attrib.render.legend import scale_bar
from attrib.render.sites import Panel, panels
from attrib.render.tokens import told

SCALES = {"share": "Shared, % of the metric's change", "raw": "Shared, raw values", "own": "Each heatmap its own"}
USUAL = Display(how="raw", percentile=100.0)
MOST_CELLS = 12_000  # of one heatmap; the page would get slow
ADDED = ", all tokens added up"
_FEW_ROWS = 14


def drawn_panels(result: attrib.Attribution, kinds: Sequence[str]) -> list[tuple[str, Panel]]:
    """(kind, heatmap) pairs: heads, queries, keys and values over heads, everything else over tokens."""
    found = []
    for kind in kinds:
        part = only(result, kind)
        grid = _is_grid(part)
        panel = panels(part, 0, columns="head" if grid else "token")[0]
        if grid:
            panel = replace(panel, columns=tuple(f"{panel.axes[1]} {name}" for name in panel.columns))
        found.append((kind, replace(panel, title=f"{kind_title(kind)}{ADDED if grid else ''}")))
    return found


def scales_of(answer: PatchAnswer, drawn: Sequence[tuple[str, Panel]], how: str, palette: str) -> list[Scale]:
    """One scale for each heatmap, all alike but for `how` "own". "share": in % of the metric's change."""
    change = answer.metric[0] - answer.metric[1]
    display = Display(how="own" if how == "own" else "raw", palette=palette, percentile=100.0)
    found = scales([panel.values for _, panel in drawn], [True] * len(drawn), display)
    if how != "share" or not change:
        return found
    return [replace(s, limit=100 * s.limit / abs(change), unit_size=change / 100, unit=" %") for s in found]


def legend(scale: Scale, unit: str) -> str:
    """The labelled colour bar. unit: what the values are of, in words."""
    b = scale_bar(scale)
    return (
        f'<div class="at-bar"><span>{b["low"]}</span><span class="at-ramp" style="{b["style"]}" role="img" '
        f'aria-label="colour scale from {b["low"]} to {b["high"]}"></span><span>{b["high"]}</span></div>'
        f'<p class="pt-unit">{html.escape(unit)}</p>'
    )


def heatmap(panel: Panel, scale: Scale, unit: str = "") -> str:
    """A grid of coloured cells to point at or walk through, and the same numbers as a table. unit: of its own scale."""
    if panel.values.size > MOST_CELLS:
        return _figure(panel, f"<p>{panel.values.size:,} values are too many to draw; the files hold them all.</p>")
    bar = legend(scale, unit) if unit else ""
    return _figure(panel, f'<div class="pt-scroll">{_grid(panel, scale)}</div>{bar}{_table(panel)}')


def _figure(panel: Panel, inside: str) -> str:
    return f'<figure class="pt-panel"><figcaption>{html.escape(panel.title)}</figcaption>{inside}</figure>'


def _grid(panel: Panel, scale: Scale) -> str:
    """The top layer first. Cells say their value by `title`, until the page's script shows it at once."""
    rows = []
    colours = scale.colour(panel.values)
    for i in reversed(range(len(panel.rows))):
        cells = "".join(
            f'<td style="background:#{r:02x}{g:02x}{b:02x}" title="{told(float(v), scale)}"></td>'
            for (r, g, b), v in zip(colours[i].tolist(), panel.values[i], strict=True)
        )
        rows.append(f'<tr><th scope="row"{_quiet(i, panel)}>{html.escape(panel.rows[i])}</th>{cells}</tr>')
    label = f"{panel.title}: {len(panel.rows)} layers by {len(panel.columns)} columns; walk with the arrow keys"
    size = "" if len(panel.rows) <= _FEW_ROWS else " pt-many"
    return (
        f'<table class="pt-heat{size}" role="grid" aria-label="{html.escape(label)}">{_head(panel, "layer")}'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _head(panel: Panel, corner: str) -> str:
    names = "".join(f'<th scope="col"><span>{html.escape(readable(name))}</span></th>' for name in panel.columns)
    return f'<thead><tr><th scope="col"><span>{corner}</span></th>{names}</tr></thead>'


def _quiet(i: int, panel: Panel) -> str:
    """Of many layers every fifth is labelled; the others' names are there for who walks through the cells."""
    return ' class="pt-quiet"' if len(panel.rows) > _FEW_ROWS and i % 5 else ""


def _table(panel: Panel) -> str:
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>{"".join(f"<td>{_digits(v)}</td>" for v in row)}</tr>'
        for name, row in zip(panel.rows, panel.values, strict=True)
    )
    return (
        '<details class="pt-numbers"><summary>The values as a table</summary><div class="pt-scroll" tabindex="0" '
        f'role="region" aria-label="{html.escape(panel.title)}"><table><caption>{html.escape(panel.title)}</caption>'
        f"{_head(panel, 'layer')}<tbody>{rows}</tbody></table></div></details>"
    )


def _digits(value: float) -> str:
    return f"{value:.3g}".replace("-", "−", 1) if np.isfinite(value) else "–"


def _is_grid(result: attrib.Attribution) -> bool:
    """Whether a layer has several sites of this kind."""
    names = result.sites or ()
    return bool(names) and all(len(name.split(".")) > 2 for name in names)
