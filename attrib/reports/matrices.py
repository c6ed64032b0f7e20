"""Tables of every two: how methods agree, how far classes' profiles are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attrib.reports.agreement import TOP_SHARE, TOP_SHARE_OF_TEXT, Agreement
from attrib.reports.pages import short
from attrib.reports.profiles import Profiles
from attrib.reports.statistics import Running
from attrib.reports.summary import Series


@dataclass(frozen=True)
class Matrix:
    """names: of rows and columns. values: what is coloured, −1 to 1, NaN for none. texts, titles: what a cell says."""

    caption: str
    names: list[str]
    values: np.ndarray
    texts: list[list[str]]
    titles: list[list[str]]


def agreement_matrices(found: Agreement, labels: dict[Series, str]) -> list[Matrix]:
    """Of rank correlation and of the overlap of strongest cells; none where nothing was compared."""
    if not found.rank:
        return []
    met = [s for s in labels if any(s in pair for pair in found.rank)]
    names = [labels[s] for s in met]
    rank = "Spearman's rank correlation of two methods' maps, mean over items ± spread. 1: the same order of cells; "
    rank += "0: none in common. Of maps without sign the magnitudes are compared."
    top = f"Overlap of the strongest {TOP_SHARE:.0%} of a picture's cells, {TOP_SHARE_OF_TEXT:.0%} of a text's tokens: "
    top += "the share that two methods have in common, mean over items ± spread."
    return [_of(rank, names, met, found.rank), _of(top, names, met, found.overlap)]


def _of(caption: str, names: list[str], met: list[Series], found: dict[tuple[Series, Series], Running]) -> Matrix:
    n = len(met)
    values = np.full((n, n), np.nan)
    texts = [["" for _ in met] for _ in met]
    titles = [["not compared" for _ in met] for _ in met]
    for i, first in enumerate(met):
        texts[i][i] = "—"
        titles[i][i] = "itself"
        for j, second in enumerate(met):
            running = found.get((first, second)) or found.get((second, first))
            if running is not None:
                values[i, j] = running.mean
                texts[i][j] = f"{running.mean:.2f} ± {running.spread:.2f}".replace("-", "−")
                titles[i][j] = f"{names[i]} and {names[j]}, {running.count} items"
    return Matrix(caption, names, values, texts, titles)


def distance_matrix(found: Profiles, labels: list[str]) -> Matrix:
    """Between classes: 1 − Pearson correlation of their profiles."""
    distances = found.distances(labels)
    names = [short(label, 30) for label in labels]
    texts = [[f"{d:.2f}" if i != j else "—" for j, d in enumerate(row)] for i, row in enumerate(distances.tolist())]
    titles = [[f"{a} and {b}" for b in names] for a in names]
    caption = "Distance of two classes' profiles: 0 the same neurons, 1 unrelated, 2 opposite."
    return Matrix(caption, names, np.where(np.eye(len(labels)) > 0, np.nan, 1 - distances), texts, titles)
