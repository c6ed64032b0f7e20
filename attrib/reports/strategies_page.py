"""The clusters of a class's maps on the page over all items, and how pictures are shown there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from attrib.render import embedded
from attrib.render.legend import scale_bar
from attrib.render.scale import number
from attrib.reports.dataset import SAMPLE, SEED, GroupView
from attrib.reports.drawings import COLOURS, Drawing, cluster_map, points
from attrib.reports.entry_files import page_path
from attrib.reports.pages import image_uri, short
from attrib.reports.spray import Cluster, Strategies, clusters_of

MOST_MEMBERS = 8  # pictures of a cluster
Photo = Callable[[str], tuple[str, bytes]]  # item -> its name and the thumbnail that shows it


def strategies(anchor: str, group: GroupView, found: Strategies, photo: Photo) -> dict[str, Any]:
    sampled = (
        f"a sample of {len(group.sample)} of its items (seed {SEED})" if group.maps.count > SAMPLE else "its items"
    )
    eigenvalues = ", ".join(number(v) for v in found.eigenvalues)
    items = [group.sample[i].item for i in found.used]
    return {
        "anchor": anchor,
        "label": group.label,
        "note": f"Spectral clusters (SpRAy) of the maps of {sampled}: {len(found.clusters)} clusters, {_why(found)}; "
        f"eigenvalues of the neighbour graph's Laplacian: {eigenvalues}.",
        "points": [
            (f"{100 * x:.1f}", f"{100 * y:.1f}", COLOURS[k % len(COLOURS)], f"cluster {k + 1}")
            for x, y, k in points(found)
        ],
        "plot_alt": f"{len(found.used)} maps in {len(found.clusters)} clusters",
        "clusters": [
            _cluster(k, cluster, cluster is found.suspect, items, group, photo)
            for k, cluster in enumerate(found.clusters)
        ],
    }


def _why(found: Strategies) -> str:
    """Why they are so many."""
    own = clusters_of(np.array(found.eigenvalues))
    if own == len(found.clusters):
        return "as many as there are eigenvalues before their widest relative gap"
    return f"so many that one stands apart, which of the {own} before the eigenvalues' widest gap none does"


def _cluster(
    k: int, cluster: Cluster, suspect: bool, items: Sequence[str], group: GroupView, photo: Photo
) -> dict[str, Any]:
    members = [items[m] for m in cluster.members[:MOST_MEMBERS]]
    named = [(item, *photo(item)) for item in members]
    words = (
        f"mean map; framed: {cluster.here:.0%} of its relevance, {cluster.elsewhere:.0%} of the other maps'. "
        f"{cluster.leaving:.1%} of its neighbours are outside."
    )
    return {
        "heading": f"Cluster {k + 1}: {len(cluster.members)} items{', stands apart' if suspect else ''}",
        "suspect": suspect,
        "colour": COLOURS[k % len(COLOURS)],
        "mean": drawing(cluster_map(cluster, group.signed)),
        "words": words,
        "photos": [shown(item, name, thumbnail) for item, name, thumbnail in named],
    }


def shown(item: str, name: str, thumbnail: bytes, value: str = "") -> dict[str, str]:
    return {"href": page_path(item), "src": image_uri(thumbnail), "name": short(name, 60), "value": value}


def drawing(found: Drawing) -> dict[str, Any]:
    return {"src": embedded(found.picture), "bar": scale_bar(found.scale)}
