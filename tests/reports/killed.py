"""A report that kills its own process once so many rows are settled: killed.py INPUTS OUT ROWS."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

import attrib
from tests.reports.conftest import tiny_model


def kill(done: int, total: int | None, message: str) -> None:
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)


torch.set_num_threads(1)
options = {"targets": ["item", "dog"], "batch": 2}
attrib.report(sys.argv[1], tiny_model(), ["saliency", "lrp"], sys.argv[2], on_progress=kill, **options)
