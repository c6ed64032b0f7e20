"""Scores of edges as one heatmap: senders upwards, receivers to the right, both in the order they are computed."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from attrib.attribution import Attribution
from attrib.render.scale import OWN, Display, scales

_LABELS = 32  # on an axis


def edges_figure(attribution: Attribution, title: str, display: Display = OWN, index: int | None = None) -> Figure:
    """index: the pair; None: the mean over all pairs."""
    values = attribution.values.detach().cpu().double()
    table = (values.mean(0) if index is None else values[index]).numpy()
    (scale,) = scales([table], [True], display)
    sheet = Figure(figsize=(8.0, 6.5), layout="constrained")
    axis = sheet.subplots()
    axis.imshow(scale.colour(table), aspect="auto", origin="lower", interpolation="nearest")
    axis.set_ylabel("from", fontsize=8)
    axis.set_xlabel("into", fontsize=8)
    rows, columns = (_ticks(names or ()) for names in (attribution.sites, attribution.receivers))
    axis.set_yticks(*rows, fontsize=7)
    axis.set_xticks(*columns, fontsize=7, rotation=60)
    mappable = ScalarMappable(Normalize(scale.low, scale.limit), ListedColormap(scale.table / 255.0))
    bar = sheet.colorbar(mappable, ax=axis)
    bar.set_label("effect" + (f" ({scale.unit.strip()})" if scale.unit else ""), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    sheet.suptitle(title.replace("$", "\\$"), fontsize=9)
    return sheet


def _ticks(names: Sequence[str]) -> tuple[list[int], list[str]]:
    step = -(-len(names) // _LABELS)
    return list(range(0, len(names), step)), list(names[::step])
