"""Several workers on this machine: this process is the first of them, the others load their models meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from attrib.errors import AttribError, Cancelled, ReportError
from attrib.models import load
from attrib.reports.batches import Batch, Model
from attrib.reports.items import count
from attrib.reports.packing import Packed
from attrib.reports.spec import Spec
from attrib.reports.workers import Heart, Worker, ahead

# fewer rows than these are done before another process has imported torch, loaded the models and paid for both
FEW_ROWS = 256


class Processes:
    """`number` workers that share the machine's cores; all but this process are started and load the models at once.

    Each has as many threads as the cores give it, whether or not the others are there yet: results depend on the
    number of threads in their last bits, and a resumed run is to make the same bytes.
    """

    def __init__(self, names: Iterable[str], device: str | None, number: int) -> None:
        context = get_context("spawn")
        self._others = number - 1
        self._threads = max(1, torch.get_num_threads() // number)
        self._stop = Flag(context.RawValue("b", 0))
        self._pool = ProcessPoolExecutor(self._others, context, _start, (self._threads, self._stop))
        # what goes wrong in these goes wrong again with the first batch, and is told then
        self._loading = [self._pool.submit(_load, tuple(names), device) for _ in range(self._others)]

    def results(
        self, worker: Worker, spec: Spec, todo: Iterator[Batch], beat: Callable[[], None]
    ) -> Generator[list[Packed]]:
        """Answers as they come, of `worker` in this process and of the others; each takes a batch when it is free."""
        heart, source = Heart(beat, self._stop), Shared(finer_at_the_end(todo, self._others + 1))
        mine = (worker.answer(batch, heart.heed) for batch in source)
        both = ahead(mine, self._elsewhere(spec, source))
        try:
            with _threads(self._threads):
                yield from both
        except Cancelled:
            raise heart.why from None
        except BrokenProcessPool as error:
            raise ReportError(
                "a worker process died, maybe for want of memory; what is finished is kept: run the same command "
                "again, with fewer workers or a smaller batch"
            ) from error
        finally:
            self._stop.set()
            both.close()

    def _elsewhere(self, spec: Spec, source: Iterator[Batch]) -> Iterator[list[Packed]]:
        wait(self._loading, return_when=FIRST_COMPLETED)  # till then whatever there is to do is done sooner here
        yield from in_flight(lambda batch: self._pool.submit(_answer, spec, batch), source, self._others)

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)


class Flag:
    """An event of several processes that has no lock: one that is killed while it asks leaves none behind."""

    def __init__(self, shared: Any) -> None:
        self._shared = shared

    def is_set(self) -> bool:
        return bool(self._shared.value)

    def set(self) -> None:
        self._shared.value = 1


class Shared:
    """One source that several threads take from."""

    def __init__(self, todo: Iterator[Batch]) -> None:
        self._todo = todo
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        with self._lock:
            return next(self._todo)


def finer_at_the_end(todo: Iterator[Batch], number: int) -> Iterator[Batch]:
    """The same work; of the last `number` batches each method alone, so that nobody waits long for another's last."""
    held: deque[Batch] = deque()
    for batch in todo:
        held.append(batch)
        if len(held) > number:
            yield held.popleft()
    for batch in held:
        yield from (replace(batch, todo=(part,)) for part in batch.todo)


def few(spec: Spec, out: Path) -> bool:
    """Whether there is so little to do that one process has done it before another could help."""
    each = len(spec.models) * len(spec.methods) * len(spec.targets)
    enough = -(-FEW_ROWS // each)
    first = replace(spec, limit=min(spec.limit or enough, enough))
    for kind in ("image", "text"):  # the models, which know, are not loaded yet
        with suppress(AttribError):
            number = count(first, kind, out)
            return number is not None and number < enough
    return False


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


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_models: dict[str, Model] = {}  # of a process of `Processes`
_heart = Heart(lambda: None)


def _start(threads: int, stop: Any) -> None:
    global _heart
    _heart = Heart(lambda: None, stop)
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
    return Worker(spec, models=_models).answer(batch, _heart.heed)
