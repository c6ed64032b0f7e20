"""Several processes and Ray actors: the same report, and a killed one that is started again or told of."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import attrib
from attrib.reports import Store
from attrib.reports.store import read_manifest
from attrib.reports.workers import ahead
from tests.reports.conftest import write_pictures

OPTIONS: dict[str, Any] = {"models": "efficientnet-lite0", "methods": "normgrad", "batch": 2, "values": "heatmap"}

pytestmark = pytest.mark.usefixtures("without_pages")


def scores(folder: Path) -> list[tuple[str, float]]:
    store = Store.open(folder)
    return [(row.name, row.score) for row in store.rows() if row.score is not None]


@pytest.fixture
def many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are enough for several processes."""
    monkeypatch.setattr("attrib.reports.processes.FEW_ROWS", 1)


@pytest.mark.usefixtures("many_rows")
def test_two_processes_make_the_same_report(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", [f"{i}.png" for i in range(9)])
    (tmp_path / "in" / "bad.png").write_text("x")
    alone = attrib.report(tmp_path / "in", out=tmp_path / "one", **OPTIONS)
    both = attrib.report(tmp_path / "in", out=tmp_path / "two", workers=2, **OPTIONS)
    assert both.counts == alone.counts
    assert [read_manifest(made.folder)["machine"]["workers"] for made in (alone, both)] == [1, 2]
    assert both.counts["failed_inputs"] == 1
    for (name, score), (other, expected) in zip(scores(both.folder), scores(alone.folder), strict=True):
        assert name == other and score == pytest.approx(expected, rel=1e-4)


def test_few_rows_are_left_to_one_process(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", [f"{i}.png" for i in range(3)])
    seen: list[int] = []
    made = attrib.report(
        tmp_path / "in", out=tmp_path / "out", workers=2, on_progress=lambda *_: seen.append(len(_workers())), **OPTIONS
    )
    assert read_manifest(made.folder)["machine"]["workers"] == 1
    assert set(seen) == {0}


@pytest.mark.usefixtures("many_rows")
def test_a_worker_that_dies_is_told_of_and_nothing_is_lost(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", [f"{i}.png" for i in range(12)])

    killed: list[int] = []

    def kill(done: int, total: int | None, message: str) -> None:
        if done == 1 and not killed:  # it is told several times, between the chunks of a method too
            killed.append(done)
            _kill_a_worker()

    with pytest.raises(attrib.ReportError, match="a worker process died"):
        attrib.report(tmp_path / "in", out=tmp_path / "out", workers=2, on_progress=kill, **OPTIONS)
    assert len(scores(tmp_path / "out")) > 0
    assert attrib.report(tmp_path / "in", out=tmp_path / "out", **OPTIONS).counts["rows"] == 12
    assert not _workers()


def _workers() -> list[psutil.Process]:
    """Processes of the pool: those that multiprocessing has spawned below this one, but its resource tracker."""
    return [child for child in psutil.Process().children() if "spawn_main" in _command(child)]


def _command(process: psutil.Process) -> str:
    """ "" for one that has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def _kill_a_worker() -> None:
    _workers()[0].send_signal(signal.SIGKILL)


def test_on_ray_a_killed_actor_comes_back_and_the_report_is_whole(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="comes with the test extra")
    write_pictures(tmp_path / "in", [f"{i}.png" for i in range(14)])
    killed: list[int] = []

    def kill(done: int, total: int | None, message: str) -> None:
        if done >= 1 and not killed:
            below = psutil.Process().children(recursive=True)
            actor = next(child for child in below if "ray::Worker" in _command(child))
            actor.send_signal(signal.SIGKILL)
            killed.append(actor.pid)

    made = attrib.report(tmp_path / "in", out=tmp_path / "ray", ray="local", workers=2, on_progress=kill, **OPTIONS)
    assert killed
    assert made.counts["rows"] == 14 and made.failed == 0
    alone = attrib.report(tmp_path / "in", out=tmp_path / "one", **OPTIONS)
    for (name, score), (other, expected) in zip(scores(made.folder), scores(alone.folder), strict=True):
        assert name == other and score == pytest.approx(expected, rel=1e-4)


def test_ahead_keeps_order_passes_errors_on_and_ends_its_thread() -> None:
    before = threading.active_count()
    assert list(ahead(iter(range(100)))) == list(range(100))

    def failing() -> Any:
        yield 1
        raise ValueError("two")

    found = ahead(failing())
    assert next(found) == 1
    with pytest.raises(ValueError, match="two"):
        next(found)
    made: list[int] = []
    endless = ahead(made.append(i) or i for i in range(10**9))  # type: ignore[func-returns-value]
    assert next(endless) == 0
    time.sleep(0.1)
    assert len(made) < 10  # it waits for whoever takes them
    endless.close()
    assert threading.active_count() <= before
