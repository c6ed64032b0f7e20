"""Spectral relevance analysis: which strategies does a network use for one class, and does one of them stand apart?

Lapuschkin et al. 2019, "Unmasking Clever Hans predictors and assessing what machines really learn": relevance maps of
a class are made small and normalised, joined into a nearest-neighbour graph, and clustered by the eigenvectors of its
Laplacian; the gap in the eigenvalues says how many clusters there are. A cluster that hardly touches the others is a
strategy of its own: the animal in one, the photographer's mark in the corner in the other.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIDE = 16  # cells along each side of the maps that are compared
LEAST_ITEMS = 20  # fewer maps have no clusters worth the name
MOST_CLUSTERS = 8
# A cluster stands apart when little leads out of it and it looks where the others do not. Chosen on digits of which
# 40 % carry a watermark (tests/reports/shortcut.py), by a network that uses it and one that does not, at 58, 87 and
# 174 maps: without the shortcut clusters had at most 1.9 times the others' relevance in their place and 0.10 or more
# of their edges led out. With it LRP gave 8.6 to 10 times and at most 0.04, found at every size; input × gradient
# was found from 87 maps on, integrated gradients at 174 only: noisy maps need more items.
MOST_LEAVING = 0.15
LEAST_RATIO = 3.0
PLACE = 0.08  # of all cells


@dataclass(frozen=True)
class Cluster:
    """members: indices of maps, the most central first. centre: (SIDE, SIDE), their mean, of length ≤ 1.

    leaving: of all edges of its members in the neighbour graph, the share that leads out of it (its conductance).
    place: (SIDE, SIDE) bool, the cells (PLACE of all) where it has most more |relevance| than the other maps.
    here, elsewhere: the share of |relevance| that lies there in its own maps and in the others.
    """

    members: tuple[int, ...]
    centre: np.ndarray
    leaving: float
    place: np.ndarray
    here: float
    elsewhere: float

    @property
    def apart(self) -> bool:
        """Whether it is a strategy of its own, and not one end of a cloud."""
        return self.leaving <= MOST_LEAVING and self.ratio >= LEAST_RATIO

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
        """Of the clusters that stand apart the one that looks most where no other looks: see its pictures first."""
        return max((c for c in self.clusters if c.apart), key=lambda c: c.ratio, default=None)


def strategies(maps: Sequence[np.ndarray]) -> Strategies | None:
    """Clusters of the maps of one class, (height, width) each, equally large. None where they are too few."""
    vectors = np.stack([small(m) for m in maps]).reshape(len(maps), -1) if len(maps) else np.zeros((0, 1))
    lengths = np.linalg.norm(vectors, axis=1)
    used = np.flatnonzero(lengths > 0)
    if len(used) < LEAST_ITEMS:
        return None
    vectors = vectors[used] / lengths[used, None]
    graph = _neighbours(vectors)
    values, embedding = _spectrum(graph)
    wanted = _clusters_of(values[: MOST_CLUSTERS + 1])
    labels = _clustered(graph, wanted)
    clusters = [_cluster(graph, vectors, labels == label) for label in sorted(set(labels.tolist()))]
    clusters.sort(key=lambda c: (len(c.members), c.members))
    eigenvalues = tuple(round(float(v), 6) for v in values[: MOST_CLUSTERS + 1])
    return Strategies(tuple(clusters), eigenvalues, embedding, tuple(used.tolist()))


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


def _clusters_of(values: np.ndarray) -> int:
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


def _cluster(graph: np.ndarray, vectors: np.ndarray, inside: np.ndarray) -> Cluster:
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
    return Cluster(
        members=tuple(members[order].tolist()),
        centre=centre.reshape(shape),
        leaving=leaving,
        place=place.reshape(shape),
        here=float(own[cells].sum()),
        elsewhere=float(others[cells].sum()),
    )
