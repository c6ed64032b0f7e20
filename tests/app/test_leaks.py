"""Many requests leave no memory, no threads and no files behind."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median

LARGEST_GROWTH = 3.0  # MB a round; its usual growth is below 1, and keeping each answer alive adds 6


def test_requests_leave_nothing_behind(tmp_path: Path) -> None:
    """What leaks grows in every round; what the allocator happens to keep, in some."""
    command = [sys.executable, "-m", "tests.app.many_requests", str(tmp_path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert median(after - before for before, after in pairwise(found["sizes"])) < LARGEST_GROWTH, found
    assert found["threads"] <= 1  # a cancelled one may still be on its way out
    assert found["left"] == []
