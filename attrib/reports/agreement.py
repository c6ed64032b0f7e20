"""How much two maps of one input agree: in the order of their cells, and in where their strongest cells are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from attrib.reports.statistics import Running
from attrib.reports.summary import Series

TOP_SHARE = 0.1  # of a picture's cells; of a text's tokens a fifth
TOP_SHARE_OF_TEXT = 0.2


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean rank."""
    _, place, count = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count + 1) / 2)[place])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation: Pearson's of the ranks. NaN where one of the maps is constant."""
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    length = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / length) if length else float("nan")


def top_overlap(a: np.ndarray, b: np.ndarray, share: float) -> float:
    """Of the k strongest cells of one, the share that is among the k strongest of the other; k = share of all cells."""
    k = max(1, round(share * a.size))
    strongest = [set(np.argsort(-np.abs(m.ravel()), kind="stable")[:k].tolist()) for m in (a, b)]
    return len(strongest[0] & strongest[1]) / k


@dataclass
class Agreement:
    """Between every two series of the same target, over all items: running means.

    Where both are signed their values are ranked; else the magnitudes, so that a norm can be set beside a signed map.
    """

    rank: dict[tuple[Series, Series], Running] = field(default_factory=dict)
    overlap: dict[tuple[Series, Series], Running] = field(default_factory=dict)

    def add(self, maps: Sequence[tuple[Series, np.ndarray, bool]]) -> float | None:
        """(series, map, signed) of one item. Returns the mean rank correlation of its pairs; None without pairs."""
        found = []
        for i, (first, a, a_signed) in enumerate(maps):
            for second, b, b_signed in maps[i + 1 :]:
                if first.target != second.target or a.shape != b.shape or a.size < 3:
                    continue
                signed = a_signed and b_signed
                value = spearman(a, b) if signed else spearman(np.abs(a), np.abs(b))
                if np.isnan(value):
                    continue
                share = TOP_SHARE if a.ndim == 2 else TOP_SHARE_OF_TEXT
                self.rank.setdefault((first, second), Running()).add(value)
                self.overlap.setdefault((first, second), Running()).add(top_overlap(a, b, share))
                found.append(value)
        return float(np.mean(found)) if found else None
