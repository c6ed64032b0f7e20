"""What one run of a report goes by, and its two halves: compute what is missing, write what is over all items."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from attrib.reports.batches import Batch, Model, Tally, batches
from attrib.reports.draughtsman import Draughtsman
from attrib.reports.evidence import told_cost
from attrib.reports.how import How, OnProgress
from attrib.reports.items import Item
from attrib.reports.manifest import About, joined
from attrib.reports.packing import Packed, store
from attrib.reports.processes import Processes
from attrib.reports.spec import Spec
from attrib.reports.store import Store
from attrib.reports.workers import Worker, here


@dataclass(frozen=True)
class Making:
    """One run. models: those of the spec, loaded. pool: other processes of this machine, if they compute too."""

    spec: Spec
    models: dict[str, Model]
    abouts: list[About]
    how: How
    pool: Processes | None
    tell: OnProgress

    @classmethod
    def of(
        cls, asked: Spec, before: dict[str, Any] | None, how: How, pool: Processes | None, tell: OnProgress
    ) -> Making:
        """Load what is asked for and, where `before`, the manifest in the folder, names more, that as well."""
        tell(0, None, "loading models")
        models = {name: how.load(name, asked) for name in asked.models}
        abouts = {name: About.of(name, model) for name, model in models.items()}
        spec = asked if before is None else joined(asked, before, abouts)
        models |= {name: how.load(name, spec) for name in spec.models if name not in models}
        all_abouts = [abouts.get(name) or About.of(name, models[name]) for name in spec.models]
        return cls(spec, models, all_abouts, how, pool, tell)

    @property
    def workers(self) -> int:
        return (self.how.workers or 1) if self.pool else 1

    def compute(self, found: Store, stream: Iterator[Item], number: int | None, draughtsman: Draughtsman) -> int:
        """Compute, store and draw what is missing of `number` inputs, None if nobody knows how many; the rows settled.

        An item is drawn while others are computed, as soon as all of it is there.
        """
        each = len(self.spec.models) * len(self.spec.methods) * len(self.spec.targets)
        total, tally = None if number is None else number * each, Tally()
        todo = batches(self.spec, stream, found.journal, tally)

        def beat() -> None:
            self.tell(tally.done, total, "explaining")

        for model in self.models.values():
            self.tell(0, total, told_cost(self.spec.evidence, model) or "explaining")
        # whatever happens, the threads of the answers end before the journal
        with closing(self._answers(todo, beat)) as results:
            for parts in results:
                tally.computed += store(found.folder, found.journal, parts)
                touched = dict.fromkeys(row.key.item for part in parts for row in part.rows)
                draughtsman.draw(item for item in touched if found.journal.count_results(item) == each)
                beat()
        return tally.done

    def close(self, found: Store, done: int, draughtsman: Draughtsman) -> dict[str, int]:
        """Write what is over all items; the counts."""
        # deferred: these take a while to import, and the first items are finished sooner without
        from attrib.reports.closing import close_report
        from attrib.reports.export import export

        tell = partial(self.tell, done, done)
        tell("writing tables")
        counts = export(found)
        draughtsman.finish(lambda: tell("drawing items"))
        tell("writing pages")
        close_report(found, lambda name: self.how.load(name, self.spec), lambda part, message: tell(message))
        return counts

    def _answers(self, todo: Iterator[Batch], beat: Callable[[], None]) -> Generator[list[Packed]]:
        if self.how.ray is not None:
            from attrib.reports.ray_map import on_ray

            return on_ray(self.spec, self.how.ray, self.how.workers, todo)
        worker = Worker(self.spec, models=self.models)
        if self.pool is not None:
            return self.pool.results(worker, self.spec, todo, beat)
        return here(worker, self.spec, todo, beat)
