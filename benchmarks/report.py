"""The measured lines as a table for the screen and one for a README."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from rich.table import Table

from benchmarks.measure import Cost
from benchmarks.run import OURS, Line

_HEADER = ("method", "network", "batch", "time", "memory", "target", "", "peers: time (memory)")


def table(lines: Iterable[Line]) -> Table:
    """For the screen."""
    shown = Table(*_HEADER, title="Ratios to the bare pass")
    for line in lines:
        verdict_style = {"ok": "green", "missed": "red"}
        cells = _cells(line)
        style = next((verdict_style[v] for v in verdict_style if cells[6].startswith(v)), "")
        shown.add_row(*cells[:6], f"[{style}]{cells[6]}[/]" if style else cells[6], cells[7])
    return shown


def markdown(lines: list[Line], device: torch.device) -> str:
    """For a README: the machine, the table, what the numbers mean, and the remarks."""
    header = [*_HEADER[:6], "reached", _HEADER[7]]
    rows = [header, ["---"] * len(header), *(list(_cells(line)) for line in lines)]
    grid = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    listed = "\n".join(f"- {remark}" for remark in remarks(lines))
    return f"{machine(device)}\n\n{grid}\n\n{MEANING}\n" + (f"\n{listed}\n" if listed else "")


def remarks(lines: Iterable[Line]) -> list[str]:
    """What the table has no room for."""
    return [f"{line.row.name}, {line.network}, batch {line.batch}: {line.remark}" for line in lines if line.remark]


MEANING = (
    "Ratios to the bare pass: one forward and `torch.autograd.grad` to the input with frozen parameters, same network "
    "(random weights, float32, 224 × 224), same batch, same process, taking turns; medians. Ours is `attrib.explain` "
    "with everything it does around the method. Time is process CPU time on a CPU and wall time on a GPU; memory is "
    "how far the peak rises during the call. Occlusion: ratio to a forward without gradients, per window."
)


def machine(device: torch.device) -> str:
    """One line: processor, threads, versions, date."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    versions = ", ".join(f"{package} {_version(package)}" for package in ("torch", "captum", "zennit", "grad-cam"))
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{name}, {threads}; {versions}; {datetime.now(UTC):%Y-%m-%d}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for row in info.read_text().splitlines():
            if row.startswith("model name"):
                return row.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "not installed"


def _cells(line: Line) -> tuple[str, ...]:
    cost, limit = line.costs[OURS], line.limit
    targets = [f"{name} ≤ {_number(most)}" for name, most in (("time", limit.time), ("memory", limit.memory)) if most]
    others = [f"{name} {_ratios(line.costs[name])}" for name in line.costs if name != OURS]
    others += [f"{name} {failure}" for name, failure in line.failures.items()]
    return (
        line.row.name,
        line.network,
        str(line.batch),
        f"{_number(cost.time_ratio)}×",
        f"{_number(cost.memory_ratio)}×",
        ", ".join(targets),
        verdict(line),
        ", ".join(others),
    )


def verdict(line: Line) -> str:
    """ok, or what was missed and by how much; empty without a target."""
    cost, limit = line.costs[OURS], line.limit
    missed = [
        f"{name} by {value / most - 1:.0%}"
        for name, value, most in (("time", cost.time_ratio, limit.time), ("memory", cost.memory_ratio, limit.memory))
        if most is not None and round(value, 2) > most
    ]
    if missed:
        return "missed: " + ", ".join(missed)
    return "ok" if limit.time or limit.memory else ""


def _ratios(cost: Cost) -> str:
    return f"{_number(cost.time_ratio)}× ({_number(cost.memory_ratio)}×)"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
