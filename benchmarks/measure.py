"""Time and peak memory of a call, beside those of a reference call in the same process.

Time: the reference and the calls take turns (reference, A, reference, B, reference, …), and a call's ratio is to the
mean of the reference before and after it, so that slow drifts of the machine cancel; the median of several rounds is
reported: as many as asked for, or as fit into 15 seconds of one row, for what takes long is disturbed little. On a CPU
process time counts, on CUDA wall time between two synchronisations.

Memory on Linux: the kernel keeps the highest resident size of a process (VmHWM); writing 5 to clear_refs sets it back
to the present size. What an earlier call freed may still be resident, and would hide what this one takes, and holes
between what is in use would be added to it by chance: see `heap`, with which runs agree to 0.5 %. Elsewhere a thread
samples the resident size, which can miss short peaks. On CUDA the allocator counts.
"""

from __future__ import annotations

import gc
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.heap import freed_at_once

Run = Callable[[], Any]
_SECONDS_A_ROW = 15.0
_STATUS, _CLEAR_REFS, _RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs"), "5"


@dataclass(frozen=True)
class Cost:
    """Medians of a call: seconds, and its ratios to the reference; memory is the increase at the call's peak."""

    seconds: float
    time_ratio: float
    peak_bytes: int
    memory_ratio: float

    def each(self, n: int) -> Cost:
        """The same call counted as n of its kind."""
        return replace(self, seconds=self.seconds / n, time_ratio=self.time_ratio / n)


def once(reference: Run, calls: Mapping[str, Run], device: torch.device) -> dict[str, Cost]:
    """As `compare`, for calls that take minutes: one run for time, warm where that takes seconds, and one for memory.

    Not one for both: what `peak_bytes` does to the heap makes every large block new memory, which takes a third longer.
    """
    reference()
    own_peak = peak_bytes(reference, device)
    costs = {}
    for name, call in calls.items():
        before = statistics.median(seconds_of(reference, device) for _ in range(3))
        taken = seconds_of(call, device)
        if taken < _SECONDS_A_ROW:
            taken = seconds_of(call, device)
        after = statistics.median(seconds_of(reference, device) for _ in range(3))
        peak = peak_bytes(call, device)
        costs[name] = Cost(taken, 2 * taken / (before + after), peak, peak / max(1, own_peak))
    return costs


def compare(reference: Run, calls: Mapping[str, Run], repeats: int, device: torch.device) -> dict[str, Cost]:
    """What each call costs beside `reference`. Everything runs once before, so that caches are warm."""
    for call in (reference, *calls.values()):
        call()
    own_peak = peak_bytes(reference, device)
    peaks = {name: peak_bytes(call, device) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    ratios: dict[str, list[float]] = {name: [] for name in calls}
    spent = 0.0
    for done in range(repeats):
        if done and spent * (done + 1) / done > _SECONDS_A_ROW:
            break
        gc.collect()
        before = seconds_of(reference, device)
        for name, call in calls.items():
            taken, after = seconds_of(call, device), seconds_of(reference, device)
            seconds[name].append(taken)
            ratios[name].append(2 * taken / (before + after))
            before, spent = after, spent + taken + after
    middle = statistics.median
    return {
        name: Cost(middle(seconds[name]), middle(ratios[name]), peaks[name], peaks[name] / max(1, own_peak))
        for name in calls
    }


def seconds_of(call: Run, device: torch.device) -> float:
    """One run, undisturbed by the garbage collector."""
    with _without_collector():
        if device.type != "cuda":
            start = time.process_time()
            call()
            return time.process_time() - start
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        torch.cuda.synchronize(device)
        return time.perf_counter() - start


@contextmanager
def _without_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def peak_bytes(call: Run, device: torch.device) -> int:
    """How far memory rises above where it stood, at the highest point of the call."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with freed_at_once():
        return _kernel_peak(call) if _can_reset_peak() else _sampled_peak(call)


def _can_reset_peak() -> bool:
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return False
    return "VmHWM" in _STATUS.read_text()


def _kernel_peak(call: Run) -> int:
    _CLEAR_REFS.write_text(_RESET_PEAK)
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{_STATUS} has no {field}")
    return int(found[1]) * 1024


def _sampled_peak(call: Run) -> int:
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    highest = [before]

    def sample() -> None:
        while not done.wait(0.001):
            highest[0] = max(highest[0], process.memory_info().rss)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        call()
    finally:
        done.set()
        thread.join()
    return highest[0] - before
