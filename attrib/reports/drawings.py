"""Pictures of what is known over all items: mean maps, spreads, clusters, and where maps lie in the embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from attrib.render import Display, Scale, over, scales
from attrib.reports.dataset import GroupView
from attrib.reports.spray import Cluster, Strategies

SIZE = 224  # pixels
COLOURS = ("#d97706", "#2563eb", "#059669", "#9333ea", "#dc2626", "#0891b2", "#65a30d", "#be185d")
_LEGIBLE = Display(percentile=100)


@dataclass(frozen=True)
class Drawing:
    """A picture and what the ends of its colours mean."""

    picture: Image.Image
    scale: Scale


def mean_map(view: GroupView) -> Drawing:
    """The class's mean map; 100 % is its strongest cell."""
    scale = scales([view.maps.mean], [view.signed], _LEGIBLE)[0]
    return Drawing(_drawn(view.maps.mean, scale), scale)


def spread_map(view: GroupView) -> Drawing:
    """The standard deviation over the class's items, in % of the strongest cell of the mean map."""
    unit = float(np.abs(view.maps.mean).max()) / 100 or 1.0
    spread = np.broadcast_to(view.maps.spread, view.maps.mean.shape)
    limit = float(np.ceil(max(spread.max() / unit, 1.0)))
    scale = Scale(limit, False, _LEGIBLE.palette, unit, " %")
    return Drawing(_drawn(spread, scale), scale)


def cluster_map(cluster: Cluster, signed: bool) -> Drawing:
    """A cluster's mean map, with a frame around the place that is its own."""
    scale = scales([cluster.centre], [signed], _LEGIBLE)[0]
    picture = _drawn(cluster.centre, scale)
    cell = picture.width / cluster.place.shape[1]
    draw = ImageDraw.Draw(picture)
    for row, column in np.argwhere(cluster.place).tolist():
        left, top = column * cell, row * cell
        for (dr, dc), line in _edges(left, top, cell).items():
            r, c = row + dr, column + dc
            outside = not (0 <= r < cluster.place.shape[0] and 0 <= c < cluster.place.shape[1])
            if outside or not cluster.place[r, c]:
                draw.line(line, fill=COLOURS[0], width=3)
    return Drawing(picture, scale)


def points(found: Strategies) -> list[tuple[float, float, int]]:
    """(x, y, cluster) of every clustered map in the plane of the embedding, both from 0 to 1."""
    cluster_of = {member: k for k, cluster in enumerate(found.clusters) for member in cluster.members}
    return [
        (float((x + 1) / 2), float((1 - y) / 2), cluster_of[i]) for i, (x, y) in enumerate(found.embedding.tolist())
    ]


def _drawn(values: np.ndarray, scale: Scale) -> Image.Image:
    return over(values.astype(np.float32), scale, None, _LEGIBLE, SIZE)


def _edges(left: float, top: float, cell: float) -> dict[tuple[int, int], tuple[float, float, float, float]]:
    right, bottom = left + cell, top + cell
    return {
        (-1, 0): (left, top, right, top),
        (1, 0): (left, bottom, right, bottom),
        (0, -1): (left, top, left, bottom),
        (0, 1): (right, top, right, bottom),
    }
