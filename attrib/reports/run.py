"""A report from beginning to end: what is finished is kept, what is not is computed, then everything is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from attrib.errors import InputError
from attrib.models import load
from attrib.reports.batches import Batch, Model, Tally, batches
from attrib.reports.files import disk_errors, remove_partial_files
from attrib.reports.items import count, items
from attrib.reports.journal import Journal, only_writer
from attrib.reports.manifest import About, begin, check_models, earlier, end, joined
from attrib.reports.packing import Packed, store
from attrib.reports.spec import Spec
from attrib.reports.store import JOURNAL, LOCK, Row, Store
from attrib.reports.workers import Worker, here, processes

OnProgress = Callable[[int, int | None, str], None]


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


@dataclass(frozen=True)
class How:
    """How a report comes about, none of which changes what is in it.

    workers: processes on this machine. ray: the address of a Ray cluster, or "local".
    retry_failed: compute anew what failed in an earlier run. own_models: models that `attrib.load` does not know.
    """

    workers: int | None = None
    ray: str | None = None
    retry_failed: bool = False
    own_models: Mapping[str, Model] | None = None


def run(
    spec: Spec, out: str | Path, how: How | None = None, on_progress: OnProgress | None = None, stdin: Any = None
) -> Report:
    """Make or go on with the report in the folder `out`.

    on_progress: told (settled rows, all rows or None, message); what it raises stops the run, and what is finished is
    kept. Raises the errors of `attrib.errors`; a single input that fails becomes a row with its error instead.
    """
    # deferred: these take a while to import, and most users of attrib need them not
    from attrib.reports.closing import close_report
    from attrib.reports.export import export

    how = how or How()
    tell = on_progress or (lambda done, total, message: None)
    folder, started = Path(out), time.monotonic()
    before = earlier(folder)
    tell(0, None, "loading models")
    models = {name: _loaded(name, spec, how) for name in spec.models}
    abouts = {name: About.of(name, model) for name, model in models.items()}
    if before is not None:
        spec = joined(spec, before, abouts)
        models |= {name: _loaded(name, spec, how) for name in spec.models if name not in models}
        abouts |= {name: About.of(name, model) for name, model in models.items()}
    kind = check_models(spec, models)
    number = count(spec, kind, folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder / LOCK), closing(Journal(folder / JOURNAL, writable=True)) as journal:
        remove_partial_files(folder)
        manifest = begin(folder, spec, [abouts[name] for name in spec.models], before)
        if how.retry_failed:
            journal.forget_failed()
        found = Store(folder, journal, manifest)
        done = _compute(spec, found, models, how, number, tell, items(spec, kind, stdin, folder))
        tell(done, done, "writing tables")
        counts = export(found)
        tell(done, done, "writing pages")
        close_report(found, lambda name: _loaded(name, spec, how), lambda part, message: tell(done, done, message))
        end(folder, manifest, counts, time.monotonic() - started)
    return Report(folder, counts)


def _loaded(name: str, spec: Spec, how: How) -> Model:
    own = (how.own_models or {}).get(name)
    if own is not None and _elsewhere(how):
        raise InputError(f"{name} is a model of your own, which other processes cannot load; leave out workers and ray")
    return own or load(name, device=spec.device)


def _elsewhere(how: How) -> bool:
    return how.ray is not None or (how.workers or 1) > 1


def _compute(
    spec: Spec,
    found: Store,
    models: dict[str, Model],
    how: How,
    number: int | None,
    tell: OnProgress,
    stream: Iterator[Any],
) -> int:
    from attrib.reports.entry_files import current_summary

    each = len(spec.models) * len(spec.methods) * len(spec.targets)
    total = None if number is None else number * each
    tally = Tally()
    todo = batches(spec, stream, found.journal, tally)
    tell(0, total, "explaining")
    beat = partial(_beat, tell, tally, total)
    results = _results(spec, todo, models, how, beat)
    with closing(results):  # whatever happens, its threads end before the journal
        for parts in results:
            tally.computed += store(found.folder, found.journal, parts)
            for item in dict.fromkeys(row.key.item for part in parts for row in part.rows):
                it, rows = found.entry(item)
                if len(rows) == each:  # its page can be drawn while others are computed
                    current_summary(found, it, rows)
            tell(tally.done, total, "explaining")
    return tally.done


def _beat(tell: OnProgress, tally: Tally, total: int | None) -> None:
    tell(tally.done, total, "explaining")


def _results(
    spec: Spec, todo: Iterator[Batch], models: dict[str, Model], how: How, beat: Callable[[], None]
) -> Generator[list[Packed]]:
    if how.ray is not None:
        from attrib.reports.ray_map import on_ray

        return on_ray(spec, how.ray, how.workers, todo)
    if (how.workers or 1) > 1:
        models.clear()  # each process loads its own
        return processes(spec, how.workers or 1, todo)
    return here(Worker(spec, models=models), spec, todo, beat)
