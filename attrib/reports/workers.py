"""Batches to finished parts: in this process with threads for decoding, or in several processes."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context, parent_process
from typing import TypeVar

import torch

from attrib.errors import Cancelled, ReportError
from attrib.models import load
from attrib.reports.batches import Batch, Model, ready
from attrib.reports.compute import outcomes
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

    def answer(self, batch: Batch) -> list[Packed]:
        """Everything that is to be done of a batch."""
        model = self.model(batch.model)
        recent: deque[str] = deque(maxlen=RECENT)
        return [packed(outcome, recent) for outcome in outcomes(self._spec, model, ready(batch, model))]


def here(
    worker: Worker, spec: Spec, todo: Iterator[Batch], beat: Callable[[], None] = lambda: None
) -> Generator[list[Packed]]:
    """In this process: one thread reads and decodes ahead, one computes; packing and writing are the caller's.

    beat: called between the chunks of a method; what it raises ends all this and is raised here.
    """
    stop = threading.Event()
    raised: list[BaseException] = []

    def heed(fraction: float, message: str) -> None:
        if not stop.is_set():
            try:
                beat()
            except BaseException as error:  # not the method's: no input failed
                raised.append(error)
        if stop.is_set() or raised:
            raise Cancelled("the report was stopped")

    decoded = ahead(ready(batch, worker.model(batch.model)) for batch in todo)
    found = ahead(o for r in decoded for o in outcomes(spec, worker.model(r.batch.model), r, heed))
    try:
        recent: deque[str] = deque(maxlen=RECENT)
        for outcome in found:
            yield [packed(outcome, recent)]
    except Cancelled:
        raise (raised[0] if raised else Cancelled("the report was stopped")) from None
    finally:
        stop.set()
        found.close()
        decoded.close()


def ahead(source: Iterator[T]) -> Generator[T]:
    """The same, made in a thread of its own that is at most a few steps ahead. Closing it ends the thread."""
    passing: queue.Queue[tuple[list[T], BaseException | None]] = queue.Queue(_AHEAD)
    closed = threading.Event()

    def run() -> None:
        try:
            for value in source:
                passing.put(([value], None))
                if closed.is_set():
                    return
            passing.put(([], None))
        except BaseException as error:  # raised again where the values are taken
            passing.put(([], error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            values, error = passing.get()
            if error is not None:
                raise error
            if not values:
                return
            yield values[0]
    finally:
        closed.set()
        while thread.is_alive():
            with suppress(queue.Empty):
                passing.get_nowait()  # room for what the thread wants to put, so that it can end
            thread.join(0.02)


class Processes:
    """`number` processes of this machine, which share its cores. They import and load the models from the first moment,
    while this one reads its own and the inputs.
    """

    def __init__(self, names: Iterable[str], device: str | None, number: int) -> None:
        self._number = number
        threads = max(1, torch.get_num_threads() // number)
        self._pool = ProcessPoolExecutor(number, get_context("spawn"), _start, (threads,))
        for _ in range(number):  # what goes wrong here goes wrong again with the first batch, and is told then
            self._pool.submit(_load, tuple(names), device)

    def results(self, spec: Spec, todo: Iterator[Batch]) -> Generator[list[Packed]]:
        """Answers as they come; twice as many batches as processes are under way at most."""
        todo = ahead(todo)
        try:
            yield from in_flight(lambda batch: self._pool.submit(_answer, spec, batch), todo, 2 * self._number)
        except BrokenProcessPool as error:
            raise ReportError(
                "a worker process died, maybe for want of memory; what is finished is kept: run the same command "
                "again, with fewer workers or a smaller batch"
            ) from error
        finally:
            todo.close()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def in_flight(
    submit: Callable[[Batch], Future[list[Packed]]], todo: Iterator[Batch], most: int
) -> Iterator[list[Packed]]:
    """Results as they come; `most` batches are under way, and the next is taken when one is finished."""
    running: set[Future[list[Packed]]] = set()
    for batch in todo:
        running.add(submit(batch))
        if len(running) >= most:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)
    while running:
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in finished)


_models: dict[str, Model] = {}  # of a process of `Processes`


def _start(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _load(names: tuple[str, ...], device: str | None) -> None:
    for name in names:
        if name not in _models:
            _models[name] = load(name, device=device)


def _end_with_parent() -> None:
    """A killed parent cannot say goodbye, and the pool's processes would wait for it for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer(spec: Spec, batch: Batch) -> list[Packed]:
    _load((batch.model,), spec.device)
    return Worker(spec, models=_models).answer(batch)
