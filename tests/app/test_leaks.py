"""Many requests leave no memory, no threads and no files behind."""

from __future__ import annotations

import gc
import os
import shutil
import threading
from pathlib import Path

import attrib
from app import downloads, explaining, markup, predictions
from app.catalogue import Catalogue
from app.displays import USUAL
from app.questions import Ask
from app.runs import Runs

NAME = "squeezenet1_1"
LARGEST_GROWTH = 40.0  # MB; one answer kept alive for each request would be five times that


def resident() -> float:
    """MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def requests(count: int, photo: Path, folder: Path, catalogue: Catalogue) -> None:
    """Predictions, explanations, errors and cancelled runs, as the page and programs make them."""
    runs = Runs(100)
    for i in range(count):
        predictions.predict(catalogue, str(photo), NAME)
        run = runs.begin(f"tab{i % 7}")
        ask = Ask(str(photo), NAME, (("saliency" if i % 2 else "grad_cam", {}),), target="x" if i % 5 == 4 else None)
        try:
            for step in explaining.explain(ask, catalogue, run):  # noqa: B007  # the last one is drawn
                if i % 5 == 3:
                    run.stop()
        except (attrib.TargetError, attrib.Cancelled):
            continue
        finally:
            runs.end(f"tab{i % 7}", run)
        if i % 10 == 0:
            markup.gallery(step.answer, USUAL)
            place = folder / str(i)
            place.mkdir()
            downloads.write(step.answer, USUAL, place)
            shutil.rmtree(place)


def test_requests_leave_nothing_behind(cheetah: Path, tmp_path: Path) -> None:
    catalogue = Catalogue((NAME,))
    requests(10, cheetah, tmp_path, catalogue)  # what is cached once
    gc.collect()
    before, threads = resident(), threading.active_count()
    requests(40, cheetah, tmp_path, catalogue)
    gc.collect()
    assert resident() - before < LARGEST_GROWTH
    assert threading.active_count() <= threads + 1  # a cancelled one may still be on its way out
    assert list(tmp_path.iterdir()) == []
