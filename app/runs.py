"""Runs that can be stopped: one at a time for each browser tab, each with a deadline."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import attrib

STOPPING = "Stopping after the current step …"


@dataclass(eq=False)
class Run:
    """One run of a tab. `check` is called between chunks and raises attrib.Cancelled once the run shall stop."""

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
    """The latest run of each tab."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._current: dict[str, Run] = {}

    def begin(self, session: str) -> Run:
        """A new run of this tab; an earlier one that still works is stopped."""
        run = Run(self._timeout)
        with self._lock:
            earlier, self._current[session] = self._current.get(session), run
        if earlier is not None:
            earlier.stop()
        return run

    def end(self, session: str, run: Run) -> None:
        """Forget the run, unless a later one has taken its place; whatever still works for it stops."""
        run.stop()
        with self._lock:
            if self._current.get(session) is run:
                del self._current[session]

    def cancel(self, session: str) -> bool:
        """Stop the tab's run; False when there is none."""
        with self._lock:
            run = self._current.get(session)
        if run is not None:
            run.stop()
        return run is not None
