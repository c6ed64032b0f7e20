"""Items are drawn by a process of their own, at the lowest priority, while this one computes.

In a thread beside the computation drawing costs twice: it holds the interpreter's lock between any two operations,
and whenever it runs on a core, the computation's threads on all the others wait for the one that lost its own.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import IO

from attrib.reports.store import Store

FEW = 32  # items that are drawn here at the end: another process has hardly started by then
_TOGETHER = 8  # items drawn between two answers
_UNDER_WAY = 3  # such groups that the other process has at a time
_LATE = 1000  # items that may wait while there is something to compute
# not `multiprocessing`, which would run a user's script again that has no `if __name__ == "__main__"`
_CODE = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from attrib.reports.draughtsman import main; main()"


class Draughtsman:
    """Draws items of a report whose rows are complete: what waits here are their names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[str] = deque()
        self._other: _Other | None = None

    def draw(self, items: Iterable[str]) -> None:
        """These items, later."""
        self._waiting.extend(items)
        if len(self._waiting) > FEW and self._other is None and sys.executable:
            self._other = _Other(self._store)
        self._hand_over()
        while len(self._waiting) > _LATE:
            draw(self._store, [self._waiting.popleft()])

    def finish(self, tell: Callable[[], None]) -> None:
        """What still waits, in both processes; returns when all is drawn. tell: called in between; may raise."""
        while self._waiting or self._other is not None:
            tell()
            self._hand_over()
            if self._waiting:
                draw(self._store, [self._waiting.pop() for _ in range(min(_TOGETHER, len(self._waiting)))])
            elif self._other is not None:
                self._end_or_wait(self._other)

    def close(self) -> None:
        """End the other process, whatever it does; what it has not drawn is drawn when the report is closed."""
        if self._other is not None:
            self._other.close()
        self._other = None

    def _hand_over(self) -> None:
        other = self._other
        if other is None:
            return
        self._waiting.extend(other.answered())
        while self._waiting and other.free:
            other.take([self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))])

    def _end_or_wait(self, other: _Other) -> None:
        if other.idle:
            self.close()
        else:
            self._waiting.extend(other.answered(seconds=0.2))


class _Other:
    """A process that draws what it is told through a pipe, and ends when that pipe does, whoever closed it.

    It says nothing of what goes wrong: the items come back, and it goes wrong again where it can be told.
    """

    def __init__(self, store: Store) -> None:
        command = [sys.executable, "-c", _CODE, json.dumps(sys.path), str(store.folder)]
        self._process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._asks: IO[bytes] = self._process.stdin  # type: ignore[assignment]
        self._answers: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        self._taken: deque[list[str]] = deque()
        self._lost = False

    @property
    def free(self) -> bool:
        """Whether it takes more."""
        return not self._lost and len(self._taken) < _UNDER_WAY

    @property
    def idle(self) -> bool:
        return not self._taken

    def take(self, items: list[str]) -> None:
        self._taken.append(items)
        with suppress(BrokenPipeError):  # it died: told by its answers
            os.write(self._asks.fileno(), f"{' '.join(items)}\n".encode())

    def answered(self, seconds: float = 0.0) -> list[str]:
        """Take note of what it has drawn, waiting so long for it; the items that come back since it died."""
        while not self._lost and self._taken and select.select([self._answers], [], [], seconds)[0]:
            said = os.read(self._answers.fileno(), _UNDER_WAY)
            self._lost = not said
            for _ in said:
                self._taken.popleft()
        if not self._lost:
            return []
        back = [item for items in self._taken for item in items]
        self._taken.clear()
        return back

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._asks.close()
        self._answers.close()


def draw(store: Store, items: Iterable[str]) -> None:
    """The files of these items, where they are missing or old."""
    from attrib.reports.entry_files import write_entries  # deferred: the first items are computed sooner without

    write_entries(store, [store.entry(item) for item in items])


def main() -> None:
    """The other process: a line of items to draw, a dot when they are, till there are no more."""
    import torch

    os.nice(19)
    torch.set_num_threads(1)
    store, parent = Store.open(sys.argv[2]), os.getppid()
    for line in sys.stdin:
        if os.getppid() != parent:  # it was killed, and may have been started again
            return
        draw(store, line.split())
        os.write(sys.stdout.fileno(), b".")
