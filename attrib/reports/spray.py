"""Spectral relevance analysis: which strategies does a network use for one class, and does one of them stand apart?

Lapuschkin et al. 2019, "Unmasking Clever Hans predictors and assessing what machines really learn": relevance maps of
a class are made small and normalised, joined into a nearest-neighbour graph, and clustered by the eigenvectors of its
Laplacian; the gap in the eigenvalues says how many clusters there are: the animal in one, the photographer's mark in
the corner in the other. Clusters are shown, and are no alarm: objects at different places make some, too. A cluster
stands apart when, beyond that, its pictures share what is in the place where it looks (`likeness.py`); where
no cluster does, other numbers of clusters are tried.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from attrib.reports.likeness import by_chance, cosines, likeness

SIDE = 16  # cells along each side of the maps that are compared
LEAST_ITEMS = 20  # fewer maps have no clusters worth the name
MOST_CLUSTERS = 8
# A cluster stands apart when a fifth of its edges at most lead out of it, it has twice the others' relevance in its
# place, and its pictures are more alike there than all of 999 random sets and by at least so much. The last number was
# chosen on shapes before pieces of photos (clusters without a shortcut: up to 0.11, with one: 0.15 to 0.38) and
# checked on letters and on digits, which it had not seen (tests/reports/shortcut.py, shortcut_letters.py).
# Of 16 planted shapes 9 are singled out (7 by colours alone, and one cluster without a mark), of noisy maps fewest.
MOST_LEAVING = 0.2
LEAST_RATIO = 2.0
LEAST_ALIKE = 0.15
PLACE = 0.08  # of all cells


@dataclass(frozen=True)
class Cluster:
    """members: indices of maps, the most central first. centre: (SIDE, SIDE), their mean, of length ≤ 1.

    leaving: of all edges of its members in the neighbour graph, the share that leads out of it (its conductance).
    place: (SIDE, SIDE) bool, the cells (PLACE of all) where it has most more |relevance| than the other maps.
    here, elsewhere: the share of |relevance| that lies there in its own maps and in the others.
    alike: how alike its pictures are there. by_chance: random sets of as many at most, 1 where nobody had to ask.
    """

    members: tuple[int, ...]
    centre: np.ndarray
    leaving: float
    place: np.ndarray
    here: float
    elsewhere: float
    alike: float = 0.0
    by_chance: float = 1.0

    @property
    def apart(self) -> bool:
        """Whether it looks at what its pictures share and the others have not."""
        return self.looks_alike and self.alike > self.by_chance

    @property
    def looks_alike(self) -> bool:
        """The same but for the question whether chance would do it."""
        return self.leaving <= MOST_LEAVING and self.ratio >= LEAST_RATIO and self.alike >= LEAST_ALIKE

    @property
    def ratio(self) -> float:
        """How many times as much of its relevance lies in its place as of the others'."""
        return self.here / max(self.elsewhere, 1e-6)


@dataclass(frozen=True)
class Strategies:
    """clusters: the smallest first. eigenvalues: the smallest of the Laplacian. embedding: (maps, 2). used: of `maps`.

    Maps that are zero everywhere are in no cluster.
    """

    clusters: tuple[Cluster, ...]
    eigenvalues: tuple[float, ...]
    embedding: np.ndarray
    used: tuple[int, ...]

    @property
    def suspect(self) -> Cluster | None:
        """Of the clusters that stand apart the one whose pictures are most alike: see them first."""
        return max((c for c in self.clusters if c.apart), key=lambda c: c.alike, default=None)


def strategies(maps: Sequence[np.ndarray], pictures: Sequence[np.ndarray] | None = None) -> Strategies | None:
    """Clusters of the maps of one class, (height, width) each, equally large. None where they are too few.

    pictures: what `cells_of` makes of each map's picture; without them no cluster can stand apart.
    """
    vectors = np.stack([small(m) for m in maps]).reshape(len(maps), -1) if len(maps) else np.zeros((0, 1))
    lengths = np.linalg.norm(vectors, axis=1)
    used = np.flatnonzero(lengths > 0)
    if len(used) < LEAST_ITEMS:
        return None
    vectors = vectors[used] / lengths[used, None]
    graph = _neighbours(vectors)
    values, embedding = _spectrum(graph)
    wanted = clusters_of(values[: MOST_CLUSTERS + 1])
    cells = None if pictures is None else np.stack([np.asarray(pictures[i], dtype=np.float64) for i in used.tolist()])
    eigenvalues = tuple(round(float(v), 6) for v in values[: MOST_CLUSTERS + 1])
    first = Strategies(_clusters(graph, vectors, cells, wanted), eigenvalues, embedding, tuple(used.tolist()))
    others = (number for number in range(2, MOST_CLUSTERS + 1) if cells is not None and number != wanted)
    finer = (replace(first, clusters=_clusters(graph, vectors, cells, number)) for number in others)
    return next((found for found in chain([first], finer) if found.suspect is not None), first)


def _clusters(graph: np.ndarray, vectors: np.ndarray, cells: np.ndarray | None, number: int) -> tuple[Cluster, ...]:
    labels = _clustered(graph, number)
    found = [_cluster(graph, vectors, cells, labels == label) for label in sorted(set(labels.tolist()))]
    return tuple(sorted(found, key=lambda c: (len(c.members), c.members)))


def draw(item: str, seed: int = 0) -> str:
    """An item's lot, a hash of (seed, item): the sample is the items with the smallest, whatever their order."""
    return hashlib.sha256(f"{seed}:{item}".encode()).hexdigest()


def small(values: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE): the sum of each cell's pixels; of a smaller map, the map."""
    if min(values.shape) < SIDE:
        return values.astype(np.float64)
    rows = np.add.reduceat(values.astype(np.float64), _starts(values.shape[0]), axis=0)
    return np.asarray(np.add.reduceat(rows, _starts(values.shape[1]), axis=1))


def _starts(n: int) -> np.ndarray:
    return np.linspace(0, n, SIDE, endpoint=False).astype(int)


def _neighbours(vectors: np.ndarray) -> np.ndarray:
    """Symmetric weights: 1 where each is among the other's k nearest, ½ where one is; k = 2 ln n, at least 4."""
    from sklearn.neighbors import kneighbors_graph  # deferred: takes a second to import

    k = min(len(vectors) - 1, max(4, 2 * round(math.log(len(vectors)))))
    directed = kneighbors_graph(vectors, k, include_self=False).toarray()
    return np.asarray((directed + directed.T) / 2)


def _spectrum(graph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the symmetric normalised Laplacian, ascending, and the plane of the first two that tell."""
    degree = graph.sum(1)
    values, vectors = np.linalg.eigh(np.eye(len(graph)) - graph / np.sqrt(np.outer(degree, degree)))
    plane = vectors[:, 1:3] / np.sqrt(degree)[:, None]
    plane = plane * np.sign(plane[np.abs(plane).argmax(0), [0, 1]])  # an eigenvector has no sign of its own
    return np.where(values < 1e-9, 0.0, values), plane / np.maximum(np.abs(plane).max(0), 1e-12)


def clusters_of(values: np.ndarray) -> int:
    """How many, at least two: k with the widest gap between the k-th and the next eigenvalue, relative to the latter.

    Relative, since gaps grow with the eigenvalues: two clouds that do not touch at all have λ₂ = 0 and so a gap of 1,
    and the widest absolute gap is often one among the eigenvalues inside a cloud.
    """
    gaps = np.diff(values) / np.maximum(values[1:], 1e-12)
    return int(gaps[1:].argmax()) + 2


def _clustered(graph: np.ndarray, wanted: int) -> np.ndarray:
    from sklearn.cluster import SpectralClustering

    with warnings.catch_warnings():
        # parts that do not touch at all are what is looked for
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        found = SpectralClustering(wanted, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
        return np.asarray(found.fit_predict(graph))


def _cluster(graph: np.ndarray, vectors: np.ndarray, pictures: np.ndarray | None, inside: np.ndarray) -> Cluster:
    centre = vectors[inside].mean(0)
    members = np.flatnonzero(inside)
    order = np.argsort(-(vectors[members] @ centre), kind="stable")
    edges = min(graph[inside].sum(), graph[~inside].sum())
    leaving = float(graph[inside][:, ~inside].sum() / edges) if edges else 1.0
    shares = np.abs(vectors) / np.abs(vectors).sum(1, keepdims=True)
    own, others = shares[inside].mean(0), shares[~inside].mean(0)
    cells = np.argsort(others - own, kind="stable")[: max(1, round(PLACE * len(own)))]
    place = np.isin(np.arange(len(own)), cells)
    shape = (math.isqrt(len(centre)), -1)
    found = Cluster(
        members=tuple(members[order].tolist()),
        centre=centre.reshape(shape),
        leaving=leaving,
        place=place.reshape(shape),
        here=float(own[cells].sum()),
        elsewhere=float(others[cells].sum()),
    )
    return found if pictures is None else _compared(found, cosines(pictures, place), inside)


def _compared(cluster: Cluster, found: np.ndarray, inside: np.ndarray) -> Cluster:
    cluster = replace(cluster, alike=likeness(found, inside))
    return replace(cluster, by_chance=by_chance(found, len(cluster.members))) if cluster.looks_alike else cluster
