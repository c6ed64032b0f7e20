"""The end of a report: the table of all items, the page over all of them, and the PDF; an item in memory at a time."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from attrib.reports.dataset import DatasetView, Entry
from attrib.reports.dataset_page import alarms, render_dataset
from attrib.reports.entry_files import current_summary, summary_path
from attrib.reports.evidence_page import EVIDENCE, EvidenceView, render_evidence
from attrib.reports.files import write_file
from attrib.reports.index_page import ALL, Seen, render_index, table_row, write_all
from attrib.reports.pages import PER_PAGE, index_path, short
from attrib.reports.pdf import render_pdf
from attrib.reports.profiles import Model, Profiler
from attrib.reports.store import Store
from attrib.reports.summary import Summary

_TARGETS = {"item": "each item's own, else the top prediction", "predicted": "the top prediction"}

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
    total = max(1, store.journal.count_inputs())
    title = title_of(store)
    table, view = _Table(store, title, store.journal.count_inputs()), DatasetView()
    profilers, evidence = _profilers(store, load), EvidenceView()
    for n, (it, rows, summary) in enumerate(_entries(store)):
        agreement = None
        if _is_first(store, it.item, it.position):
            agreement = view.first_pass(it, rows, summary)
            _profile(store, profilers, rows, it.text)
            evidence.add(it, rows)
        else:
            agreement = view.repeated(rows, summary)
        table.add(table_row(it, rows, summary, agreement), agreement)
        told(0.6 * n / total, "reading results")
    table.flush()
    view.choose()
    for n, (it, rows, summary) in enumerate(_entries(store)):
        if _is_first(store, it.item, it.position):
            view.second_pass(it, rows, summary)
        told(0.6 + 0.3 * n / total, "comparing with the class means")
    view.finish()
    profiles = [p for profiler in profilers.values() if (p := profiler.finish()) is not None]
    told(0.9, "writing pages")
    photo = _photos(store)
    write_file(store.folder / "dataset.html", render_dataset(title, view, photo, profiles))
    if evidence:
        write_file(store.folder / EVIDENCE, render_evidence(title, evidence))
    # without times, so that the same report makes the same file
    facts = [fact for fact in facts_of(store, view) if fact[0] != "started"]
    write_file(store.folder / "report.pdf", render_pdf(store, title, facts, view, photo, profiles))
    write_file(store.folder / "index.html", render_index(0, table.first, table.total, title, _summary(store, view)))
    table.write_all()
    _remove_beyond(store, table.number)
    told(1.0, "report written")
    return view


def title_of(store: Store) -> str:
    """What the report is called."""
    return short(f"Report on {', '.join(store.models)}", 120)


def facts_of(store: Store, view: DatasetView) -> list[tuple[str, str, bool]]:
    """(name, value, whether it is long) for the head of the report."""
    times = store.manifest.get("times", {})
    classes = len({label for _, label in view.classes})
    return [
        ("items", str(store.journal.count_inputs()), False),
        ("failed", str(view.failed) + (f" (+ {view.partly} in part)" if view.partly else ""), False),
        ("classes explained", str(classes), False),
        ("models", short(", ".join(store.models), 200), True),
        ("methods", short(", ".join(store.methods), 300), True),
        ("targets", short(", ".join(_TARGETS.get(t, t) for t in store.targets), 200), True),
        *([("started", _minute(str(times["started"])), True)] if times.get("started") else []),
    ]


def _summary(store: Store, view: DatasetView) -> dict[str, Any]:
    found = [{"text": a["text"], "href": f"dataset.html#{a['anchor']}"} for a in alarms(view)]
    if view.failed or view.partly:
        many = f"{view.failed} item{'s' * (view.failed != 1)} failed"
        what = f"{many}{f', {view.partly} in part' if view.partly else ''}: filter the table by state to see why."
        found.insert(0, {"text": what, "href": ""})
    if store.manifest["spec"].get("evidence"):
        found.append({"text": "How far to trust the maps: what was measured of them.", "href": EVIDENCE})
    manifest = store.manifest
    models = [
        (f"model {m['name']}", f"weights {m['weights_hash']}, {m['device']}, {m['dtype']}") for m in manifest["models"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    settings = [(f"method {name}", _plain(value)) for name, value in manifest["spec"]["methods"].items()]
    pairs = [*models, *settings, ("versions", versions)]
    return {
        "facts": facts_of(store, view),
        "warnings": found,
        "provenance": [(short(name, 80), short(value, 400)) for name, value in pairs],
    }


def _plain(value: Any) -> str:
    told = ", ".join(f"{k} = {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return told or "default settings"


def _minute(time: str) -> str:
    """ISO 8601 in UTC, to the minute."""
    return f"{time[:16].replace('T', ' ')} UTC" if time.endswith(("+00:00", "Z")) else time


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
