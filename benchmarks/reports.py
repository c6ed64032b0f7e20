"""`python -m benchmarks.reports`: batch reports beside the bare batched computation, workers, the start, memory.

rate     items per second of a report (decode to written files) over that of `attrib.explain` alone on batches of the
         same pictures, decoded beforehand: turn by turn, the report being frozen meanwhile, so that both meet the same
         machine; wall and CPU time are shown
workers  the same report by one process and by two
start    from starting `attrib report` to the first finished item, model cached
memory   the peak of a report on many small texts and pictures, at a fifth and at all of them: half an hour, so only
         where it is asked for, `--only memory`
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import typer
from PIL import Image

import attrib
from attrib.models import VisionModel, photos
from attrib.reports import Store
from attrib.reports.store import read_manifest

_ROUNDS = 3
_SILENT: dict[str, Any] = {"check": True, "capture_output": True}
_SHARE = 3  # times as long as a turn of the bare computation the report goes on before the next one


def pictures(folder: Path, number: int, size: tuple[int, int] = (500, 375)) -> None:
    """Different crops of the example photos, as JPEGs."""
    folder.mkdir()
    sources = [Image.open(path).convert("RGB") for path in photos().values()]
    generator = np.random.default_rng(0)
    for i in range(number):
        image = sources[i % len(sources)]
        share = generator.uniform(0.5, 1)
        width, height = int(image.width * share), int(image.height * share)
        left = int(generator.integers(0, image.width - width + 1))
        top = int(generator.integers(0, image.height - height + 1))
        image.crop((left, top, left + width, top + height)).resize(size).save(folder / f"{i:05}.jpg", quality=90)


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """(wall seconds, CPU seconds of this process) of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def bare(model: VisionModel, x: torch.Tensor, methods: dict[str, Any]) -> None:
    """The computation alone: a prepared batch through every method."""
    for method in methods.values():
        attrib.explain(model, x, method)


def rate(folder: Path, items: int, name: str, steps: int, batch: int) -> None:
    """One report of all items in a process of its own, which is frozen while the bare computation has its turns."""
    model = attrib.load(name)
    assert isinstance(model, VisionModel)
    methods = {
        "lrp": attrib.LRP(),
        "integrated_gradients": attrib.IntegratedGradients(steps),
        "normgrad": attrib.NormGrad(),
    }
    paths = [str(path) for path in sorted((folder / "in").iterdir())][: 4 * batch]
    tensors = [model.encode(paths[start : start + batch]).x for start in range(0, len(paths), batch)]
    bare(model, tensors[0], methods)
    turns = [timed(lambda: bare(model, tensors[0], methods))]
    command = _command(folder, name, list(methods), "rate", "--batch", str(batch))
    running = subprocess.Popen(
        [*command, "--set", f"integrated_gradients.n_steps={steps}"], stdout=subprocess.DEVNULL, start_new_session=True
    )
    while True:
        try:
            running.wait(_SHARE * turns[-1][0])
            break
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGSTOP)  # with the process that draws
            x = tensors[len(turns) % len(tensors)]
            turns.append(timed(functools.partial(bare, model, x, methods)))
            os.killpg(running.pid, signal.SIGCONT)
    assert running.returncode == 0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    frozen = sum(wall for wall, _ in turns[1:])
    whole = (read_manifest(folder / "rate")["times"]["seconds"] - frozen, used.ru_utime + used.ru_stime)
    alone = sum(len(tensors[i % len(tensors)]) for i in range(len(turns)))
    print(f"rate: {items} items, {steps} steps, batches of {batch}; {alone} items alone in {len(turns)} turns")
    for place, what in enumerate(("wall", "CPU, with imports")):
        ours, theirs = items / whole[place], alone / sum(turn[place] for turn in turns)
        print(f"rate ({what}): report {ours:.2f} items/s, bare {theirs:.2f}: ratio {ours / theirs:.3f}", flush=True)


def workers(folder: Path, name: str, methods: list[str], limit: int) -> None:
    """The whole command with one worker and with two, in turns."""
    ratios = []
    for turn in range(_ROUNDS):
        seconds = []
        for number in (1, 2) if turn % 2 else (2, 1):
            command = _command(folder, name, methods, f"w{turn}{number}", "--workers", str(number))
            seconds.append(timed(functools.partial(subprocess.run, [*command, "--limit", str(limit)], **_SILENT))[0])
        seconds = seconds if turn % 2 else seconds[::-1]
        ratios.append(seconds[0] / seconds[1])
        print(
            f"workers: one {seconds[0]:.1f} s, two {seconds[1]:.1f} s for {limit} items: {ratios[-1]:.2f} times as fast"
        )
    print(f"workers: median {sorted(ratios)[len(ratios) // 2]:.2f}")


def _command(folder: Path, name: str, methods: list[str], out: str, *more: str) -> list[str]:
    command = [sys.executable, "-m", "attrib.cli", "report", str(folder / "in"), "--model", name]
    return [*command, "--methods", ",".join(methods), "--out", str(folder / out), *more]


def start(folder: Path, name: str, methods: list[str]) -> None:
    """From the command to the first item whose methods are all finished."""
    for turn in range(_ROUNDS):
        out = folder / f"start{turn}"
        started = time.perf_counter()
        running = subprocess.Popen(
            _command(folder, name, methods, out.name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not _first_is_finished(out, len(methods)) and running.poll() is None:
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        own = psutil.Process(running.pid).cpu_times()
        print(f"start: first item finished after {seconds:.1f} s, of which {own.user + own.system:.1f} s of CPU time")
        running.kill()
        running.wait()


def _first_is_finished(out: Path, methods: int) -> bool:
    try:
        store = Store.open(out)
        found = next(store.entries(), None)
        store.close()
    except attrib.ReportError:
        return False
    return found is not None and len(found[1]) == methods


def memory(folder: Path, items: int) -> None:
    """Peaks of processes of their own: a report of a fifth of the items, and of all of them."""
    for kind in ("text", "image"):
        peaks = []
        for number in (items // 5, items):
            command = [sys.executable, "-m", "benchmarks.report_memory", kind, str(number), str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(int(done.stdout.split()[-1]))
            print(f"memory: {number} small {kind}s, peak {peaks[-1] / 2**20:.0f} MB")
        print(f"memory: {kind}s: {(peaks[1] - peaks[0]) / 2**20:+.0f} MB for {items - items // 5} items more")


def main(
    only: Annotated[str, typer.Option(help="Parts, with commas: rate, workers, start, memory.")] = "rate,workers,start",
    items: Annotated[int, typer.Option(help="Pictures of the rate.")] = 500,
    small: Annotated[int, typer.Option(help="Small items of the memory.")] = 20_000,
    model: Annotated[str, typer.Option(help="The network.")] = "efficientnet-lite0",
    steps: Annotated[int, typer.Option(help="n_steps of integrated gradients; 50 takes four times as long.")] = 10,
    batch: Annotated[int, typer.Option(help="Items of a batch.")] = 16,
) -> None:
    """Measure; targets: rate 0.85, workers 1.0, start 10 s, memory flat."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures(folder / "in", items)
        for part in only.split(","):
            if part == "rate":
                rate(folder, items, model, steps, batch)
            elif part == "workers":
                workers(folder, model, ["lrp", "normgrad"], min(items, 200))
            elif part == "start":
                start(folder, model, ["lrp", "integrated_gradients", "normgrad"])
            else:
                memory(folder, small)


if __name__ == "__main__":
    typer.run(main)
