"""Folders for files to download, together within a bound: thousands of answers may be asked for in an hour."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

MOST_KEPT = 2**30  # bytes
_PREFIX = "answer-"


def new_place(folder: str | Path) -> Path:
    """A new folder inside `folder`. Where those before it take more than MOST_KEPT, the oldest go."""
    room = MOST_KEPT
    for place in sorted(Path(folder).glob(f"{_PREFIX}*"), key=_changed, reverse=True):
        room -= size(place)
        if room < 0:
            shutil.rmtree(place, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))


# another thread may be removing the same ones


def _changed(place: Path) -> float:
    with suppress(FileNotFoundError):
        return place.stat().st_mtime
    return 0.0


def size(place: Path) -> int:
    """Bytes of all files inside; what goes meanwhile counts for nothing."""
    taken = 0
    for folder, _, files in os.walk(place):
        for file in files:
            with suppress(FileNotFoundError):
                taken += os.lstat(os.path.join(folder, file)).st_size
    return taken
