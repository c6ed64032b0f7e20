"""Batches to finished parts in this process: a thread decodes, the caller computes, packs and writes."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import torch

from attrib.errors import Cancelled
from attrib.models import load
from attrib.reports.batches import Batch, Model, ready
from attrib.reports.compute import Progress, outcomes
from attrib.reports.packing import RECENT, Packed, packed
from attrib.reports.spec import Spec

T = TypeVar("T")
_AHEAD = 2  # batches decoded, and outcomes computed, that may wait for whoever takes them


class Worker:
    """What answers batches, in whatever process it is. Models are loaded once, when their first batch comes."""

    def __init__(self, spec: Spec, threads: int | None = None, models: Mapping[str, Model] | None = None) -> None:
        self._spec = spec
        self._models = dict(models or {})
        if threads is not None:
            torch.set_num_threads(threads)

    def model(self, name: str) -> Model:
        if name not in self._models:
            self._models[name] = load(name, device=self._spec.device)
        return self._models[name]

    def answer(self, batch: Batch, on_progress: Progress | None = None) -> list[Packed]:
        """Everything that is to be done of a batch."""
        model = self.model(batch.model)
        recent: deque[str] = deque(maxlen=RECENT)
        return [packed(outcome, recent) for outcome in outcomes(self._spec, model, ready(batch, model), on_progress)]


def here(
    worker: Worker, spec: Spec, todo: Iterator[Batch], beat: Callable[[], None] = lambda: None
) -> Generator[list[Packed]]:
    """In this process: a thread reads and decodes ahead, the rest is the caller's.

    The computation too: torch's threads work for the thread that called them first, and for another, that gets threads
    of its own, GNU's OpenMP puts them all to sleep at every barrier, which takes a third of the time more.

    beat: called between the chunks of a method; what it raises ends all this and is raised here.
    """
    heart = Heart(beat)
    decoded = ahead(ready(batch, worker.model(batch.model)) for batch in todo)
    try:
        recent: deque[str] = deque(maxlen=RECENT)
        for prepared in decoded:
            for outcome in outcomes(spec, worker.model(prepared.batch.model), prepared, heart.heed):
                yield [packed(outcome, recent)]
    except Cancelled:
        raise heart.why from None
    finally:
        decoded.close()


class Heart:
    """Between the chunks of a method: may it go on? stop: set from outside; beat: what it raises stops it as well."""

    def __init__(self, beat: Callable[[], None], stop: Any = None) -> None:
        self.stop = stop or threading.Event()
        self._beat = beat
        self._raised: BaseException | None = None

    def heed(self, fraction: float, message: str) -> None:
        if self._raised is None and not self.stop.is_set():
            try:
                self._beat()
            except BaseException as error:  # not the method's: no input failed
                self._raised = error
        if self._raised is not None or self.stop.is_set():
            raise Cancelled("the report was stopped")

    @property
    def why(self) -> BaseException:
        """What the beat raised."""
        return self._raised or Cancelled("the report was stopped")


def ahead(*sources: Iterator[T]) -> Generator[T]:
    """The same, made in a thread for each source that is at most a few steps ahead. Closing it ends the threads.

    Of one source in its order; of several as their values come.
    """
    passing: queue.Queue[tuple[list[T], BaseException | None]] = queue.Queue(_AHEAD)
    closed = threading.Event()
    threads = [threading.Thread(target=_pass_on, args=(s, passing, closed), daemon=True) for s in sources]
    for thread in threads:
        thread.start()
    ended = 0
    try:
        while ended < len(threads):
            values, error = passing.get()
            if error is not None:
                raise error
            yield from values
            ended += not values
    finally:
        closed.set()
        while any(thread.is_alive() for thread in threads):
            with suppress(queue.Empty):
                passing.get_nowait()  # room for what a thread wants to put, so that it can end
            for thread in threads:
                thread.join(0.02 / len(threads))


def _pass_on(
    source: Iterator[T], passing: queue.Queue[tuple[list[T], BaseException | None]], closed: threading.Event
) -> None:
    try:
        for value in source:
            passing.put(([value], None))
            if closed.is_set():
                break
        passing.put(([], None))
    except BaseException as error:  # raised again where the values are taken
        passing.put(([], error))
    finally:
        if isinstance(source, Generator):
            source.close()
