"""Many requests, in a process of their own: prints the sizes after each round and what is left, as JSON."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import torch

import attrib
from app import downloads, explaining, markup, predictions
from app.catalogue import Catalogue
from app.displays import USUAL
from app.questions import Ask
from app.runs import Runs
from attrib.models import photos

NAME = "squeezenet1_1"
ROUNDS, REQUESTS = 4, 15


def settled() -> float:
    """Resident memory in MB."""
    gc.collect()
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


def main(folder: Path) -> None:
    catalogue, photo = Catalogue((NAME,)), photos()["cheetah"]
    torch.set_num_threads(1)
    requests(10, photo, folder, catalogue)  # what is cached once
    threads, sizes = threading.active_count(), [settled()]
    for _ in range(ROUNDS):
        requests(REQUESTS, photo, folder, catalogue)
        sizes.append(settled())
    left = [path.name for path in folder.iterdir()]
    json.dump({"sizes": sizes, "threads": threading.active_count() - threads, "left": left}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
