"""Circuits as pictures: faithfulness against size, and the graph with its layers upwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from attrib.render.tokens import readable

if TYPE_CHECKING:
    from attrib.patching.circuit import Circuit

_POSITIVE, _NEGATIVE = "#b2182b", "#2166ac"
_FACES = {"embed": "#f7f7f7", "mlp_out": "#fdebd3", "logits": "#f7f7f7"}
_MIXING = "#e6f0e0"  # heads, or what stands for them
_NAMES = {"mlp_out": "MLP", "attn_out": "attention", "mixer_out": "mixer", "head": "head"}
_LINE = 4.0  # points of the strongest edge


def curve_figure(circuit: Circuit) -> Figure:
    """Faithfulness and completeness over the number of edges, on a logarithmic axis; the kept size is marked."""
    sheet = Figure(figsize=(6.4, 4.0), layout="constrained")
    axis = sheet.subplots()
    sizes = [max(1, size.edges) for size in circuit.curve]
    axis.plot(sizes, [s.faithfulness for s in circuit.curve], "o-", color=_POSITIVE, label="faithfulness F(C)")
    axis.plot(sizes, [s.completeness for s in circuit.curve], "s--", color=_NEGATIVE, label="completeness F(M∖C)")
    axis.axvline(max(1, circuit.size.edges), color="#999999", linewidth=0.8)
    axis.axhline(1.0, color="#cccccc", linewidth=0.8)
    axis.axhline(0.0, color="#cccccc", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xlabel(f"edges, of {circuit.possible}")
    axis.set_ylabel("share of the metric's change")
    axis.legend(fontsize=8)
    axis.set_title(_caption(circuit), fontsize=8)
    return sheet


def graph_figure(circuit: Circuit, most: int) -> Figure:
    """Nodes by layer, heads to the left of their layer's MLP; wider lines are stronger, red ones help the answer."""
    links = sorted(circuit.links, key=lambda link: -abs(link.score))[:most]
    places = _places(circuit, {name for link in links for name in (link.source, link.target)})
    width, height = (max((abs(place[i]) for place in places.values()), default=0.0) for i in (0, 1))
    sheet = Figure(figsize=(max(5.0, 1.4 * width + 2), max(3.0, 0.55 * height + 1.5)), layout="constrained")
    axis = sheet.subplots()
    axis.set_axis_off()
    axis.set_xlim(-width - 0.8, width + 0.8)
    axis.set_ylim(-0.8, height + 0.8)
    strongest = max((abs(link.score) for link in links), default=1.0) or 1.0
    for link in reversed(links):
        _arrow(axis, places[link.source], places[link.target], link.score / strongest)
    for name, (x, y) in places.items():
        style = {
            "boxstyle": "round,pad=0.3",
            "facecolor": _FACES.get(name.partition(".")[0], _MIXING),
            "edgecolor": "#666666",
        }
        axis.text(x, y, _label(name), ha="center", va="center", fontsize=7, bbox=style)
    left = f"; the {len(links)} strongest of {len(circuit.links)}" if len(links) < len(circuit.links) else ""
    axis.set_title(_caption(circuit) + left, fontsize=8)
    return sheet


def _places(circuit: Circuit, shown: set[str]) -> dict[str, tuple[float, float]]:
    """Node → (x, y): a row for each layer with any, side by side around 0."""
    rows: dict[int, list[str]] = {}
    for name in circuit.nodes:
        if name in shown:
            rows.setdefault(_row(name), []).append(name)
    places = {}
    for height, rank in enumerate(sorted(rows)):
        for i, name in enumerate(rows[rank]):
            # every other row half a place aside, so that arrows do not run through boxes
            places[name] = (i - (len(rows[rank]) - 1) / 2 + (height % 2) / 4, float(height))
    return places


def _arrow(axis: Any, start: tuple[float, float], end: tuple[float, float], share: float) -> None:
    style = {
        "arrowstyle": "-|>",
        "color": _POSITIVE if share > 0 else _NEGATIVE,
        "linewidth": max(0.3, _LINE * abs(share)),
        "alpha": 0.25 + 0.6 * abs(share),
        "shrinkA": 9,
        "shrinkB": 9,
        "connectionstyle": "arc3,rad=0.12",
    }
    axis.annotate("", xy=end, xytext=start, arrowprops=style)


def _row(name: str) -> int:
    """One row of the drawing for each layer."""
    kind, _, rest = name.partition(".")
    if kind in ("embed", "logits"):
        return -1 if kind == "embed" else 10**6
    return int(rest.split(".")[0])


def _label(name: str) -> str:
    kind, _, rest = name.partition(".")
    return f"{_NAMES[kind]} {rest}" if kind in _NAMES else name


def _caption(circuit: Circuit) -> str:
    size, about = circuit.size, circuit.about
    more = f" and {circuit.pairs - 1} more" if circuit.pairs > 1 else ""
    first = f"{about['method']}, {about['ablation']} ablation: {' '.join(readable(about['target']).split())}{more}"
    second = f"{size.edges} edges, faithfulness {size.faithfulness:z.2f}, completeness {size.completeness:z.2f}"
    return f"{first}\n{second}".replace("$", "\\$")
