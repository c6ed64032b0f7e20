"""Runs that can be stopped, each with a deadline: one at a time for each browser tab."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import attrib

STOPPING = "Stopping after the current step …"


@dataclass(eq=False)
class Run:
    """One run. `check` is called between chunks and raises attrib.Cancelled once the run shall stop."""

    timeout: float  # seconds
    started: float = field(default_factory=time.monotonic)
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """From any thread; the work ends at its next chunk."""
        self.stopped.set()

    def says(self, told: str) -> str:
        """What the page is told while it works; once it shall stop, that."""
        return STOPPING if self.stopped.is_set() else told

    def check(self) -> None:
        if self.stopped.is_set():
            raise attrib.Cancelled("stopped")
        if time.monotonic() - self.started > self.timeout:
            raise attrib.Cancelled(
                f"stopped after the limit of {self.timeout:.0f} seconds; choose fewer methods or smaller settings"
            )


class Runs:
    """What works at the moment, by session: a browser tab, or a program's connection."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._current: dict[str, tuple[Run, ...]] = {}

    def begin(self, session: str, *, alone: bool = True) -> Run:
        """A new run of this session. alone: those that still work for it are stopped, as a page shows one answer."""
        run = Run(self._timeout)
        with self._lock:
            earlier = self._current.get(session, ())
            self._current[session] = (run,) if alone else (*earlier, run)
        if alone:
            _stop(earlier)
        return run

    def end(self, session: str, run: Run) -> None:
        """Forget the run; whatever still works for it stops."""
        run.stop()
        with self._lock:
            left = tuple(other for other in self._current.pop(session, ()) if other is not run)
            if left:
                self._current[session] = left

    def cancel(self, session: str) -> bool:
        """Stop what works for the session; False when nothing does."""
        with self._lock:
            running = self._current.get(session, ())
        _stop(running)
        return bool(running)


def _stop(runs: tuple[Run, ...]) -> None:
    for run in runs:
        run.stop()
