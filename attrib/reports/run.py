"""A report from beginning to end: what is finished is kept, what is not is computed, then everything is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib.reports.draughtsman import Draughtsman
from attrib.reports.files import disk_errors, remove_partial_files
from attrib.reports.how import How, OnProgress
from attrib.reports.items import count, items
from attrib.reports.journal import Journal, only_writer
from attrib.reports.making import Making
from attrib.reports.manifest import begin, check_models, earlier, end
from attrib.reports.processes import Processes, few
from attrib.reports.spec import Spec
from attrib.reports.store import JOURNAL, LOCK, Row, Store


@dataclass(frozen=True)
class Report:
    """A finished report. counts: inputs, items, rows, failed_inputs, failed_rows."""

    folder: Path
    counts: dict[str, int]

    @property
    def failed(self) -> int:
        """How many inputs have at least one row without a result."""
        return self.counts["failed_inputs"]

    def rows(self) -> Iterator[Row]:
        """Every row, one per input × model × method × target, one after the other."""
        with closing(Store.open(self.folder)) as found:
            yield from found.rows()

    def failures(self) -> Iterator[Row]:
        """The rows without a result; `row.error` says why."""
        return (row for row in self.rows() if row.failed)

    def store(self) -> Store:
        """The folder, for maps and pictures: `store.attribution(row)`. Close it afterwards."""
        return Store.open(self.folder)


def run(
    spec: Spec, out: str | Path, how: How | None = None, on_progress: OnProgress | None = None, stdin: Any = None
) -> Report:
    """Make or go on with the report in the folder `out`.

    on_progress: told (settled rows, all rows or None, message); what it raises stops the run, and what is finished is
    kept. Raises the errors of `attrib.errors`; a single input that fails becomes a row with its error instead.
    """
    how, tell, folder = how or How(), on_progress or (lambda done, total, message: None), Path(out)
    how.check(spec)
    before = earlier(folder)
    with ExitStack() as stack:
        pool = None
        if how.elsewhere and how.ray is None and not few(spec, folder):
            pool = stack.enter_context(closing(Processes(spec.models, spec.device, how.workers or 1)))
        started = time.monotonic()
        making = Making.of(spec, before, how, pool, tell)
        return _made(making, folder, before, stdin, started)


def _made(making: Making, folder: Path, before: dict[str, Any] | None, stdin: Any, started: float) -> Report:
    spec = making.spec
    kind = check_models(spec, making.models)
    number = count(spec, kind, folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder / LOCK), closing(Journal(folder / JOURNAL, writable=True)) as journal:
        remove_partial_files(folder)
        manifest = begin(folder, spec, making.abouts, before, making.workers)
        if making.how.retry_failed:
            journal.forget_failed()
        found = Store(folder, journal, manifest)
        with closing(Draughtsman(found)) as draughtsman:
            done = making.compute(found, items(spec, kind, stdin, folder), number, draughtsman)
            counts = making.close(found, done, draughtsman)
        end(folder, manifest, counts, time.monotonic() - started)
    return Report(folder, counts)
