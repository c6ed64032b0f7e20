"""The end of a report: the table of all items, the page over all of them, and the PDF; an item in memory at a time."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from attrib.reports.dataset import DatasetView, Entry
from attrib.reports.dataset_page import render_dataset
from attrib.reports.entry_files import current_summary, summary_path
from attrib.reports.evidence_page import EVIDENCE, EvidenceView, render_evidence
from attrib.reports.files import write_file
from attrib.reports.head import facts_of, summary_of, title_of
from attrib.reports.index_page import ALL, Seen, render_index, table_row, write_all
from attrib.reports.pages import PER_PAGE, index_path
from attrib.reports.pdf import render_pdf
from attrib.reports.profiles import Model, Profiler
from attrib.reports.store import Store
from attrib.reports.summary import Summary

Progress = Callable[[float, str], None]


@dataclass
class _Table:
    """Writes each page of the table as soon as it is full; the first waits for the summary that is on it."""

    store: Store
    title: str
    total: int
    first: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    number: int = 0
    seen: Seen = field(default_factory=Seen)
    agreements: array[float] = field(default_factory=lambda: array("d"))  # NaN: none

    def add(self, row: dict[str, Any], agreement: float | None) -> None:
        self.rows.append(row)
        self.seen.add(row)
        self.agreements.append(math.nan if agreement is None else agreement)
        if len(self.rows) == PER_PAGE:
            self.flush()

    def flush(self) -> None:
        if self.number == 0:
            self.first = self.rows
        elif self.rows:
            content = render_index(self.number, self.rows, self.total, self.title)
            write_file(self.store.folder / index_path(self.number), content)
        self.number += 1
        self.rows = []

    def write_all(self) -> None:
        """The table of all items, where there are several pages."""
        path = self.store.folder / ALL
        if self.total > PER_PAGE:
            entries = zip(self.store.entries(), self.agreements, strict=True)
            rows = (table_row(it, rows, None, None if math.isnan(a) else a) for (it, rows), a in entries)
            write_all(path, rows, self.seen, self.total, self.title)
        else:
            path.unlink(missing_ok=True)


def close_report(
    store: Store, load: Callable[[str], Model] | None = None, on_progress: Progress | None = None
) -> DatasetView:
    """Write index.html and its further pages, dataset.html and report.pdf; pages of items where missing or old.

    load: gives a model by its name; asked only where the spec has a profile_layer. on_progress: called with (finished
    fraction, message); what it raises stops the writing. The same store gives the same files.
    """
    told = on_progress or (lambda fraction, message: None)
    title = title_of(store)
    table, view = _Table(store, title, store.journal.count_inputs()), DatasetView()
    profilers, evidence = _profilers(store, load), EvidenceView()
    _read(store, table, view, profilers, evidence, lambda part: told(0.6 * part, "reading results"))
    _compare(store, view, lambda part: told(0.6 + 0.3 * part, "comparing with the class means"))
    told(0.9, "writing pages")
    profiles = [p for profiler in profilers.values() if (p := profiler.finish()) is not None]
    photo = _photos(store)
    write_file(store.folder / "dataset.html", render_dataset(title, view, photo, profiles))
    if evidence:
        write_file(store.folder / EVIDENCE, render_evidence(title, evidence))
    # without times, so that the same report makes the same file
    facts = [fact for fact in facts_of(store, view) if fact[0] != "started"]
    write_file(store.folder / "report.pdf", render_pdf(store, title, facts, view, photo, profiles))
    write_file(store.folder / "index.html", render_index(0, table.first, table.total, title, summary_of(store, view)))
    table.write_all()
    _remove_beyond(store, table.number)
    told(1.0, "report written")
    return view


def _read(
    store: Store,
    table: _Table,
    view: DatasetView,
    profilers: dict[str, Profiler],
    evidence: EvidenceView,
    told: Callable[[float], None],
) -> None:
    """Every item once, into all that is over them."""
    for n, (it, rows, summary) in enumerate(_entries(store)):
        if _is_first(store, it.item, it.position):
            agreement = view.first_pass(it, rows, summary)
            _profile(store, profilers, rows, it.text)
            evidence.add(it, rows)
        else:
            agreement = view.repeated(rows, summary)
        table.add(table_row(it, rows, summary, agreement), agreement)
        told(n / table.total)
    table.flush()


def _compare(store: Store, view: DatasetView, told: Callable[[float], None]) -> None:
    """Every item once more, beside the means that are known now."""
    view.choose()
    total = max(1, store.journal.count_inputs())
    for n, (it, rows, summary) in enumerate(_entries(store)):
        if _is_first(store, it.item, it.position):
            view.second_pass(it, rows, summary)
        told(n / total)
    view.finish()


def _entries(store: Store) -> Iterator[Entry]:
    for it, rows in store.entries():
        yield it, rows, current_summary(store, it, rows)


def _is_first(store: Store, item: str, position: int) -> bool:
    """Whether this is the first input with its content; others like it count once."""
    found = store.journal.input_of(item)
    return found is None or found[0] == position


def _photos(store: Store) -> Callable[[str], tuple[str, bytes]]:
    def photo(item: str) -> tuple[str, bytes]:
        it, _ = store.entry(item)
        return it.name, Summary.from_bytes((store.folder / summary_path(item)).read_bytes()).photo

    return photo


def _profilers(store: Store, load: Callable[[str], Model] | None) -> dict[str, Profiler]:
    layer = store.manifest["spec"].get("profile_layer") or ""
    return {name: Profiler(load(name), layer) for name in store.models} if layer and load is not None else {}


def _profile(store: Store, profilers: dict[str, Profiler], rows: list[Any], text: str | None) -> None:
    for name, profiler in profilers.items():
        row = next((row for row in rows if row.model == name and not row.failed), None)
        if row is not None:
            profiler.add(str(row.target_label), store.picture(row), text)


def _remove_beyond(store: Store, pages: int) -> None:
    """Pages of the table that an earlier, longer run left."""
    number = max(1, pages)
    while (path := store.folder / index_path(number)).exists():
        path.unlink()
        number += 1
