"""Patching results as pictures: one heatmap for every kind of site, layers upwards and tokens to the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from attrib.attribution import Attribution, labels_of
from attrib.errors import InputError, UnknownName
from attrib.render.edges import edges_figure
from attrib.render.entry import Entry
from attrib.render.pictures import drawn
from attrib.render.scale import OWN, Display, Scale, number, scales
from attrib.render.tokens import readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = ("layer", "site")
COLUMNS = ("token", "head", "sum")
_LONGEST_TOKEN = 12  # characters of a label
_TITLES = {
    "embed": "embeddings",
    "resid_pre": "stream before the block",
    "resid_mid": "stream between attention and MLP",
    "resid_post": "stream behind the block",
    "attn_out": "attention output",
    "mixer_out": "mixer output",
    "mlp_out": "MLP output",
    "head": "heads (z)",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "neuron": "neurons",
}


@dataclass(frozen=True)
class Panel:
    """One heatmap: values (rows, columns) with their labels; NaN where nothing was measured.

    axes: what a row and a column are; empty where the labels say it.
    """

    title: str
    values: np.ndarray
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    axes: tuple[str, str] = ("", "")


def panels(
    attribution: Attribution, index: int | None = None, rows: str = "layer", columns: str = "token"
) -> list[Panel]:
    """A heatmap for each kind of site, in the result's order.

    index: the pair; None: the mean over all pairs. rows: "layer" adds up the sites of one kind in a layer (the heads,
    say), "site" gives each its own row. columns: "token"; "head" and "sum" add up all positions, and "head" spreads
    the heads of a layer over the columns.
    """
    for what, given, known in (("rows", rows, ROWS), ("columns", columns, COLUMNS)):
        if given not in known:
            raise UnknownName(what, given, known)
    if attribution.kind != "sites" or attribution.sites is None:
        raise InputError(f"an attribution of kind {attribution.kind} has no sites to plot")
    values = attribution.values.detach().cpu().double()
    table = (values.mean(0) if index is None else values[index]).numpy()
    tokens = _tokens(attribution, index)
    kinds: dict[str, list[int]] = {}
    for i, name in enumerate(attribution.sites):
        kinds.setdefault(_parts(name)[0], []).append(i)
    names = attribution.sites
    return [_panel(kind, [names[i] for i in own], table[own], tokens, rows, columns) for kind, own in kinds.items()]


def sites_figure(
    attribution: Attribution,
    display: Display = OWN,
    *,
    index: int | None = None,
    rows: str = "layer",
    columns: str = "token",
) -> Figure:
    """A figure of `panels`, or of edges; index None: the only pair, or the mean over several."""
    if attribution.kind == "edges":
        return edges_figure(attribution, caption(attribution, index), display, index)
    shown = panels(attribution, index, rows, columns)
    limits = scales([panel.values for panel in shown], [True] * len(shown), display)
    heights = [max(1.8, 0.16 * len(panel.rows) + 0.9) for panel in shown]
    width = max(5.0, min(16.0, 0.42 * max(len(panel.columns) for panel in shown) + 2.4))
    sheet = Figure(figsize=(width, sum(heights) + 0.4), layout="constrained")
    axes = sheet.subplots(len(shown), 1, squeeze=False, height_ratios=heights)
    for panel, scale, (axis,) in zip(shown, limits, axes, strict=True):
        _draw(axis, panel, scale)
        mappable = ScalarMappable(Normalize(scale.low, scale.limit), ListedColormap(scale.table / 255.0))
        bar = sheet.colorbar(mappable, ax=axis)
        bar.set_label("effect" + (f" ({scale.unit.strip()})" if scale.unit else ""), fontsize=8)
        bar.ax.tick_params(labelsize=7)
    sheet.suptitle(_plain(caption(attribution, index)), fontsize=9)
    return sheet


def caption(attribution: Attribution, index: int | None = None) -> str:
    """Method, target and both runs' metric in one line."""
    parts = attribution.parts or {}
    which = slice(None) if index is None else slice(index, index + 1)
    clean, corrupted = (float(parts[f"metric_{run}"][which].cpu().double().mean()) for run in ("clean", "corrupted"))
    others = len(attribution) - 1 if index is None else 0
    several = f" and {others} more: their mean" if others else ""
    name = " ".join(readable(labels_of(attribution.target)[index or 0]).split())
    return f"{attribution.method}: {name}{several}; metric {clean:.3g} clean, {corrupted:.3g} corrupted"


def card_of(entry: Entry, display: Display = OWN) -> dict[str, Any]:
    """What a card shows of one pair: its heatmaps as a picture, and the strongest effects in words."""
    attribution, index = entry.attribution, entry.sample
    strongest = [(_named(effect), number(effect.value)) for effect in attribution.top(8, index)]
    told = "; ".join(f"{where} {value}" for where, value in strongest[:3])
    return {
        "picture": drawn(sites_figure(attribution, display, index=index)) if entry.heatmaps else None,
        "alt": f"{caption(attribution, index)}; strongest: {told or 'nothing'}",
        "strongest": strongest,
    }


def _named(effect: Any) -> str:
    receiver = getattr(effect, "receiver", None)
    if receiver is not None:
        return f"{readable(effect[0])} → {readable(receiver)}"
    return f"{readable(effect[0])} at {effect[1]} {_token(effect)}"


def _token(effect: Any) -> str:
    both = effect.clean == effect.corrupted
    return readable(effect.clean) if both else f"{readable(effect.clean)}/{readable(effect.corrupted)}"


def _panel(
    kind: str, names: Sequence[str], table: np.ndarray, tokens: tuple[str, ...], rows: str, columns: str
) -> Panel:
    title = _TITLES.get(kind, kind)
    if columns == "head":
        if all(len(name.split(".")) > 2 for name in names):
            return _grid(title, names, table)
        columns = "sum"
    values = table if columns == "token" else _added(table, 1)[:, None]
    across = tokens if columns == "token" else ("all tokens",)
    positions = "position" if across == tuple(map(str, range(len(across)))) else ""  # tokens speak for themselves
    if rows == "site":
        return Panel(title, values, tuple(names), across, ("", positions))
    layers: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        layers.setdefault(_parts(name)[1], []).append(i)
    added = np.stack([_added(values[own], 0) for own in layers.values()])
    return Panel(title, added, tuple(layers), across, ("layer" if any(layers) else "", positions))


def _grid(title: str, names: Sequence[str], table: np.ndarray) -> Panel:
    """Layers × heads, all positions added up."""
    places = [name.split(".")[1:3] for name in names]
    layers, heads = (tuple(dict.fromkeys(place[i] for place in places)) for i in (0, 1))
    values = np.full((len(layers), len(heads)), np.nan)
    for (layer, head), value in zip(places, _added(table, 1), strict=True):
        values[layers.index(layer), heads.index(head)] = value
    return Panel(title, values, layers, heads, ("layer", "neurons" if names[0].startswith("neuron") else "head"))


def _added(values: np.ndarray, axis: int) -> np.ndarray:
    """The sum of what was measured; NaN where nothing was."""
    total: np.ndarray = np.where(np.isnan(values).all(axis), np.nan, np.nansum(values, axis))
    return total


def _parts(name: str) -> tuple[str, str]:
    """(kind, layer) of a site's name: head.3.2.q is ("q", "3")."""
    parts = name.split(".")
    kind = parts[3] if parts[0] == "head" and len(parts) == 4 else parts[0]
    return kind, parts[1] if len(parts) > 1 else ""


def _tokens(attribution: Attribution, index: int | None) -> tuple[str, ...]:
    """One label per position; where the prompts differ, clean/corrupted; several pairs by their positions alone."""
    positions = int(attribution.values.shape[2])
    if index is None and len(attribution) > 1:
        return tuple(str(i) for i in range(positions))
    pairs = zip(
        (attribution.token_texts or ((),))[index or 0], (attribution.corrupted_texts or ((),))[index or 0], strict=True
    )
    labels = [_short(a) if a == b else f"{_short(a)}/{_short(b)}" for a, b in pairs]
    return (*labels, *[""] * (positions - len(labels)))


def _short(token: str) -> str:
    shown = readable(token)
    return shown if len(shown) <= _LONGEST_TOKEN else f"{shown[: _LONGEST_TOKEN - 1]}…"


def _draw(axis: Axes, panel: Panel, scale: Scale) -> None:
    axis.imshow(scale.colour(panel.values), aspect="auto", origin="lower", interpolation="nearest")
    axis.set_title(panel.title, fontsize=9)
    axis.set_ylabel(panel.axes[0], fontsize=8)
    axis.set_xlabel(panel.axes[1], fontsize=8)
    axis.set_xticks(range(len(panel.columns)), [_plain(name) for name in panel.columns], fontsize=7, rotation=60)
    step = max(1, len(panel.rows) // 40)
    axis.set_yticks(range(0, len(panel.rows), step), [_plain(name) for name in panel.rows[::step]], fontsize=7)


def _plain(text: str) -> Any:
    """Any text as a label: $ would start a formula."""
    return text.replace("$", "\\$")
