"""A report from beginning to end: what is finished is kept, what is not is computed, then everything is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from attrib.errors import InputError
from attrib.models import load
from attrib.reports.batches import Batch, Model, Tally, batches
from attrib.reports.draughtsman import Draughtsman
from attrib.reports.evidence import told_cost
from attrib.reports.files import disk_errors, remove_partial_files
from attrib.reports.items import count, items
from attrib.reports.journal import Journal, only_writer
from attrib.reports.manifest import About, begin, check_models, earlier, end, joined
from attrib.reports.packing import Packed, store
from attrib.reports.processes import Processes, few
from attrib.reports.spec import Spec
from attrib.reports.store import JOURNAL, LOCK, Row, Store
from attrib.reports.workers import Worker, here

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

    workers: processes on this machine, this one among them; a report of few rows is made by one.
    ray: the address of a Ray cluster, or "local".
    retry_failed: compute anew what failed in an earlier run. own_models: models that `attrib.load` does not know.
    """

    workers: int | None = None
    ray: str | None = None
    retry_failed: bool = False
    own_models: Mapping[str, Model] | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether other processes compute."""
        return self.ray is not None or (self.workers or 1) > 1


def run(
    spec: Spec, out: str | Path, how: How | None = None, on_progress: OnProgress | None = None, stdin: Any = None
) -> Report:
    """Make or go on with the report in the folder `out`.

    on_progress: told (settled rows, all rows or None, message); what it raises stops the run, and what is finished is
    kept. Raises the errors of `attrib.errors`; a single input that fails becomes a row with its error instead.
    """
    how, tell = how or How(), on_progress or (lambda done, total, message: None)
    if how.elsewhere:
        _refuse_own_models(spec, how)
    before = earlier(Path(out))
    with ExitStack() as stack:
        pool = None
        if how.elsewhere and how.ray is None and not few(spec, Path(out)):
            pool = stack.enter_context(closing(Processes(spec.models, spec.device, how.workers or 1)))
        return _run(spec, Path(out), before, how, pool, tell, stdin)


def _run(
    spec: Spec,
    folder: Path,
    before: dict[str, Any] | None,
    how: How,
    pool: Processes | None,
    tell: OnProgress,
    stdin: Any,
) -> Report:
    started = time.monotonic()
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
        manifest = begin(
            folder, spec, [abouts[name] for name in spec.models], before, (how.workers or 1) if pool else 1
        )
        if how.retry_failed:
            journal.forget_failed()
        found = Store(folder, journal, manifest)
        for model in models.values():
            tell(0, number, told_cost(spec.evidence, model) or "explaining")
        answers = partial(_answers, spec, models, how, pool)
        with closing(Draughtsman(found)) as draughtsman:
            done = _compute(spec, found, answers, number, tell, items(spec, kind, stdin, folder), draughtsman)
            counts = _close(found, lambda name: _loaded(name, spec, how), partial(tell, done, done), draughtsman)
        end(folder, manifest, counts, time.monotonic() - started)
    return Report(folder, counts)


def _close(
    found: Store, load: Callable[[str], Model], tell: Callable[[str], None], draughtsman: Draughtsman
) -> dict[str, int]:
    """Write what is over all items; the counts."""
    # deferred: these take a while to import, and the first items are finished sooner without
    from attrib.reports.closing import close_report
    from attrib.reports.export import export

    tell("writing tables")
    counts = export(found)
    draughtsman.finish(lambda: tell("drawing items"))
    tell("writing pages")
    close_report(found, load, lambda part, message: tell(message))
    return counts


def _loaded(name: str, spec: Spec, how: How) -> Model:
    return (how.own_models or {}).get(name) or load(name, device=spec.device)


def _refuse_own_models(spec: Spec, how: How) -> None:
    for name in spec.models:
        if name in (how.own_models or {}):
            raise InputError(
                f"{name} is a model of your own, which other processes cannot load; leave out workers and ray"
            )


Answers = Callable[[Iterator[Batch], Callable[[], None]], Generator[list[Packed]]]


def _compute(
    spec: Spec,
    found: Store,
    answers: Answers,
    number: int | None,
    tell: OnProgress,
    stream: Iterator[Any],
    draughtsman: Draughtsman,
) -> int:
    each = len(spec.models) * len(spec.methods) * len(spec.targets)
    total = None if number is None else number * each
    tally = Tally()
    todo = batches(spec, stream, found.journal, tally)
    tell(0, total, "explaining")
    # whatever happens, the threads of the answers end before the journal
    with closing(answers(todo, partial(_beat, tell, tally, total))) as results:
        for parts in results:
            tally.computed += store(found.folder, found.journal, parts)
            touched = dict.fromkeys(row.key.item for part in parts for row in part.rows)
            # drawn while others are computed, as soon as all of an item is there
            draughtsman.draw(item for item in touched if found.journal.count_results(item) == each)
            tell(tally.done, total, "explaining")
    return tally.done


def _beat(tell: OnProgress, tally: Tally, total: int | None) -> None:
    tell(tally.done, total, "explaining")


def _answers(
    spec: Spec,
    models: dict[str, Model],
    how: How,
    pool: Processes | None,
    todo: Iterator[Batch],
    beat: Callable[[], None],
) -> Generator[list[Packed]]:
    if how.ray is not None:
        from attrib.reports.ray_map import on_ray

        return on_ray(spec, how.ray, how.workers, todo)
    if pool is not None:
        return pool.results(Worker(spec, models=models), spec, todo, beat)
    return here(Worker(spec, models=models), spec, todo, beat)
