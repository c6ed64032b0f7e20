"""What a report says of its inputs together: per class mean maps, typical and untypical items, words, strategies.

Two passes over the summaries of the items; what is held in memory does not grow with their number: running means for
at most MOST_TRACKED classes, a few items per class, and a bounded sample for the clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from attrib.reports.agreement import Agreement
from attrib.reports.likeness import cells_of
from attrib.reports.spray import LEAST_ITEMS, SIDE, Strategies, draw, small, strategies
from attrib.reports.statistics import Running
from attrib.reports.store import Input, Row
from attrib.reports.summary import Series, Summary
from attrib.reports.words import Words

Group = tuple[Series, str]  # a class: what was explained
Entry = tuple[Input, list[Row], Summary]

MOST_TRACKED = 1000  # groups; later ones are counted, and that is said
MOST_SHOWN = 12  # groups of a series
MOST_NAMED = 3  # typical items of a group, and untypical ones
SAMPLE = 400  # maps of a group that are clustered
SEED = 0


@dataclass(frozen=True)
class Typical:
    """An item and the cosine of its map with its class's mean map."""

    item: str
    name: str
    cosine: float


class Drawn(NamedTuple):
    """An item in the sample of its class: its lot, its map, and its picture's colours and contrasts, cell by cell."""

    lot: str
    item: str
    values: np.ndarray
    seen: np.ndarray | None


@dataclass
class GroupView:
    """A class of a series. maps: running mean and spread of its maps, each scaled to magnitudes that add up to 1.

    most, least: typical items. strategies: SpRAy's clusters, over `sample` of its items; None where they are too few.
    """

    label: str
    signed: bool
    maps: Running = field(default_factory=Running)
    most: list[Typical] = field(default_factory=list)
    least: list[Typical] = field(default_factory=list)
    sample: list[Drawn] = field(default_factory=list)
    strategies: Strategies | None = None

    @property
    def varies(self) -> bool:
        """Whether there is a spread to draw."""
        return self.maps.count > 1 and float(self.maps.spread.max()) > 1e-6 * float(np.abs(self.maps.mean).max())


@dataclass
class DatasetView:
    """inputs, failed, partly: how many there were, and of how many all or some results failed.

    shown: per series its largest classes. untracked: results of classes beyond MOST_TRACKED, which only are counted.
    """

    inputs: int = 0
    failed: int = 0
    partly: int = 0
    classes: Counter[Group] = field(default_factory=Counter)
    agreement: Agreement = field(default_factory=Agreement)
    groups: dict[Group, GroupView] = field(default_factory=dict)
    words: Words = field(default_factory=Words)
    shown: dict[Series, list[GroupView]] = field(default_factory=dict)
    untracked: int = 0

    def first_pass(self, it: Input, rows: list[Row], summary: Summary) -> float | None:
        """Count an item and add its maps. Returns how much its methods agree, for the table of items."""
        self._count(rows)
        found = _found(rows, summary)
        for row, values in found:
            self._add(row, values)
        return self.agreement.add([(Series.of(row), m, row.signed) for row, m in found])

    def repeated(self, rows: list[Row], summary: Summary) -> float | None:
        """An input like an earlier one: counted, but its maps are in already."""
        self._count(rows)
        return Agreement().add([(Series.of(row), m, row.signed) for row, m in _found(rows, summary)])

    def _count(self, rows: list[Row]) -> None:
        errors = sum(row.failed for row in rows)
        self.inputs += 1
        self.failed += bool(rows) and errors == len(rows)
        self.partly += 0 < errors < len(rows)

    def _add(self, row: Row, values: np.ndarray) -> None:
        group = (Series.of(row), str(row.target_label))
        if group not in self.classes and len(self.classes) >= MOST_TRACKED:
            self.untracked += 1
            return
        self.classes[group] += 1
        if values.ndim == 1:
            self.words.add(group, row, values)
        elif (share := shares(values)) is not None:
            self.groups.setdefault(group, GroupView(group[1], row.signed)).maps.add(share)

    def choose(self) -> None:
        """Between the passes: the classes that are shown, and forget the others' maps."""
        by_size = sorted(self.groups.items(), key=lambda g: (-g[1].maps.count, g[0]))
        for (series, _), view in by_size:
            chosen = self.shown.setdefault(series, [])
            if len(chosen) < MOST_SHOWN:
                chosen.append(view)
        kept = {id(view) for views in self.shown.values() for view in views}
        self.groups = {group: view for group, view in self.groups.items() if id(view) in kept}

    def second_pass(self, it: Input, rows: list[Row], summary: Summary) -> None:
        """Set an item beside the mean of its class, and draw its lot for the clusters."""
        seen = cells_of(summary.photo, SIDE)
        for row, values in zip(rows, summary.maps, strict=True):
            view = self.groups.get((Series.of(row), str(row.target_label)))
            share = None if view is None or values is None or values.ndim == 1 else shares(values)
            if view is None or share is None:
                continue
            found = Typical(it.item, it.name, cosine(share, view.maps.mean))
            view.most = sorted([*view.most, found], key=lambda t: (-t.cosine, t.item))[:MOST_NAMED]
            view.least = sorted([*view.least, found], key=lambda t: (t.cosine, t.item))[:MOST_NAMED]
            view.sample.append(Drawn(draw(it.item, SEED), it.item, small(share).astype(np.float32), seen))
            if len(view.sample) >= 2 * SAMPLE:
                view.sample = _drawn(view.sample)

    def finish(self) -> None:
        """After the passes: cluster the sample of every class that is large enough."""
        for view in self.groups.values():
            view.sample = _drawn(view.sample)
            if len(view.sample) >= LEAST_ITEMS:
                seen = [one.seen for one in view.sample if one.seen is not None]
                pictures = seen if len(seen) == len(view.sample) else None
                view.strategies = strategies([one.values for one in view.sample], pictures)

    @property
    def series(self) -> list[Series]:
        """In the order of the report."""
        return list(dict.fromkeys(series for series, _ in self.classes))


def shares(values: np.ndarray) -> np.ndarray | None:
    """The map scaled so that its magnitudes add up to 1: every item counts the same. None of a map that is zero."""
    total = float(np.abs(values).sum(dtype=np.float64))
    return values.astype(np.float64) / total if total > 0 else None


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of the angle between two maps; 0 where one is zero."""
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / length if length else 0.0


def view_of(entries: Iterable[Entry], again: Iterable[Entry]) -> DatasetView:
    """The view of what two equal iterations give, an item at a time."""
    view = DatasetView()
    for entry in entries:
        view.first_pass(*entry)
    view.choose()
    for entry in again:
        view.second_pass(*entry)
    view.finish()
    return view


def _found(rows: list[Row], summary: Summary) -> list[tuple[Row, np.ndarray]]:
    return [(row, m) for row, m in zip(rows, summary.maps, strict=True) if m is not None]


def _drawn(sample: list[Drawn]) -> list[Drawn]:
    return sorted(sample, key=lambda s: (s.lot, s.item))[:SAMPLE]
