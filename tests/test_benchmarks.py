"""The benchmark command measures what it says, on tiny pictures and in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from benchmarks import measure
from benchmarks.__main__ import main
from benchmarks.cases import Case
from benchmarks.measure import Cost, compare, once, peak_bytes
from benchmarks.report import markdown, verdict
from benchmarks.rows import ROWS, Limit, Row, explained
from benchmarks.run import OURS, Line, measured

CPU = torch.device("cpu")
Measured = Callable[..., dict[str, Cost]]


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def grab(megabytes: int) -> torch.Tensor:
    return torch.ones(megabytes * 2**18)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("resnet50", 1, CPU, size=64)


@pytest.mark.parametrize("measured_by", [partial(compare, repeats=3), once])
def test_time_ratios(measured_by: Measured) -> None:
    cost = measured_by(lambda: burn(0.1), {"dearer": lambda: burn(0.3)}, device=CPU)["dearer"]
    assert 2.5 < cost.time_ratio < 3.5


@pytest.mark.parametrize("measured_by", [partial(compare, repeats=3), once])
def test_memory_ratios(measured_by: Measured) -> None:
    few, many = partial(grab, 64), partial(grab, 192)  # far more than what the rest of the process takes meanwhile
    cost = measured_by(few, {"dearer": many}, device=CPU)["dearer"]
    assert 2.7 < cost.memory_ratio < 3.3


def test_rounds_that_take_long_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_SECONDS_A_ROW", 0.1)
    runs: list[int] = []
    compare(lambda: burn(0.02), {"any": lambda: runs.append(burn(0.02) or 1)}, 100, CPU)
    assert 3 <= len(runs) <= 6  # one warm, one for memory, and of 0.04 s each as many rounds as fit


def test_peak_counts_what_is_freed_before_the_end_and_not_what_was_there() -> None:
    standing = grab(64)
    assert abs(peak_bytes(lambda: grab(100).sum(), CPU) / 2**20 - 100) < 15
    assert peak_bytes(lambda: standing[:1].sum(), CPU) < 15 * 2**20


def test_a_row_beside_its_peers(case: Case) -> None:
    line = measured(next(row for row in ROWS if row.name == "saliency"), case, 1)
    assert set(line.costs) == {OURS, "captum"} and not line.failures
    assert 0.5 < line.costs[OURS].time_ratio < 3


def test_a_peer_that_raises_is_named(case: Case) -> None:
    def unable(case: Case) -> None:
        raise ValueError("not for this network")

    line = measured(Row("saliency", explained("saliency"), {"peer": unable}), case, 1)
    assert line.failures == {"peer": "raises ValueError"} and list(line.costs) == [OURS]
    assert "peer raises ValueError" in markdown([line], CPU)


@pytest.mark.parametrize(
    ("time_ratio", "memory_ratio", "expected"),
    [(1.0, 1.0, "ok"), (1.084, 1.15, "ok"), (1.62, 1.0, "missed: time by 50%"), (1.0, 2.3, "missed: memory by 100%")],
)
def test_verdict(time_ratio: float, memory_ratio: float, expected: str) -> None:
    row = Row("any", explained("saliency"), limits={"resnet50": Limit(1.08, 1.15)})
    assert verdict(Line(row, "resnet50", 1, {OURS: Cost(1.0, time_ratio, 1, memory_ratio)})) == expected
    assert verdict(Line(row, "vgg16", 1, {OURS: Cost(1.0, time_ratio, 1, memory_ratio)})) == ""


def test_command_writes_a_markdown_table(tmp_path: Path) -> None:
    app, file = Typer(), tmp_path / "table.md"
    app.command()(main)
    threads = torch.get_num_threads()
    try:
        result = CliRunner().invoke(app, ["--quick", "--size", "64", "--methods", "normgrad", "--markdown", str(file)])
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    rows = [line for line in file.read_text().splitlines() if line.startswith("| normgrad")]
    assert len(rows) == 1 and all(row.count("|") == 9 and "×" in row for row in rows)


def test_unknown_names_are_refused() -> None:
    app = Typer()
    app.command()(main)
    for options in (["--models", "resnet99"], ["--methods", "nothing"]):
        assert CliRunner().invoke(app, options).exit_code == 2
