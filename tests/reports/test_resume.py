"""Killed at any instant and started again, a report ends as an unbroken run ends it, and no work is done twice."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest

import attrib
from attrib.reports import Report, compute
from attrib.reports.identity import contents

Make = Callable[..., Report]


class Killed(BaseException):
    """What the tests end a run with; nobody may catch it."""


def test_two_runs_write_the_same_bytes_apart_from_times(
    make: Make, photos_of_noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(days=1, minutes=1)

    first = make(photos_of_noise, "a")
    monkeypatch.setattr("attrib.reports.manifest.datetime", Tomorrow)
    second = make(photos_of_noise, "b")
    assert contents(first.folder) == contents(second.folder)
    assert {"manifest.json", "results.parquet", "results.csv", "spec.toml"} < set(contents(first.folder))
    assert len(list(first.rows())) == 7 * 2 * 2


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_killed_at_every_write_and_resumed_the_report_is_that_of_an_unbroken_run(
    make: Make, photos_of_noise: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    whole = contents(make(photos_of_noise, "whole", ("saliency",), targets=["item"]).folder)
    honest, kills, budget = getattr(os, call), 0, 0

    def failing(*arguments: Any) -> Any:
        nonlocal budget
        budget -= 1
        if budget < 0:
            raise Killed
        return honest(*arguments)

    monkeypatch.setattr(os, call, failing)
    for survived in range(1, 200):  # each attempt gets through one write more than the last
        budget = survived
        try:
            make(photos_of_noise, "broken", ("saliency",), targets=["item"])
            break
        except Killed:
            kills += 1
    assert kills > 3
    assert contents(photos_of_noise.parent / "broken") == whole


def test_finished_work_is_not_repeated_and_one_more_method_computes_just_that(
    make: Make, photos_of_noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    explain = compute.explain

    def counting(model: Any, inputs: Any, method: Any, *rest: Any, **options: Any) -> Any:
        asked.append((method.name, len(inputs)))
        return explain(model, inputs, method, *rest, **options)

    monkeypatch.setattr(compute, "explain", counting)

    def stop(done: int, total: int | None, message: str) -> None:
        if done >= 12:
            raise Killed

    with pytest.raises(Killed):
        make(photos_of_noise, on_progress=stop)
    before = len(list(attrib.reports.Store.open(photos_of_noise.parent / "report").rows()))
    asked.clear()
    make(photos_of_noise)
    assert sum(number for _, number in asked) == 28 - before
    asked.clear()
    make(photos_of_noise)
    assert asked == []
    make(photos_of_noise, methods=("saliency", "lrp", "input_x_gradient"))
    assert {name for name, _ in asked} == {"input_x_gradient"}
    assert sum(number for _, number in asked) == 14
    fresh = make(photos_of_noise, "fresh", ("saliency", "lrp", "input_x_gradient"))
    assert contents(photos_of_noise.parent / "report") == contents(fresh.folder)


def test_killed_for_real(make: Make, photos_of_noise: Path) -> None:
    script = Path(__file__).with_name("killed.py")
    out = photos_of_noise.parent / "report"
    ended = subprocess.run([sys.executable, script, photos_of_noise, out, "9"], check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert 9 <= len(list(attrib.reports.Store.open(out).rows())) < 28
    assert contents(make(photos_of_noise).folder) == contents(make(photos_of_noise, "whole").folder)


@pytest.mark.parametrize("problem", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_cannot_be_written_loses_nothing(
    make: Make, photos_of_noise: Path, monkeypatch: pytest.MonkeyPatch, problem: int
) -> None:
    honest, budget = os.fsync, 12

    def full(handle: int) -> None:
        nonlocal budget
        budget -= 1
        if budget < 0:
            raise OSError(problem, os.strerror(problem))
        honest(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(attrib.ReportError, match="run the same command again: what is finished is kept"):
        make(photos_of_noise)
    monkeypatch.undo()
    kept = len(list(attrib.reports.Store.open(photos_of_noise.parent / "report").rows()))
    assert kept > 0
    assert contents(make(photos_of_noise).folder) == contents(make(photos_of_noise, "whole").folder)


def test_a_folder_that_cannot_be_made_is_named(make: Make, photos_of_noise: Path) -> None:
    (photos_of_noise.parent / "file").write_text("here is no room for a folder")
    with pytest.raises(attrib.ReportError, match="file/report"):
        make(photos_of_noise, "file/report")


def test_two_runs_cannot_write_into_one_folder(make: Make, photos_of_noise: Path) -> None:
    def again(done: int, total: int | None, message: str) -> None:
        if done == 4:
            make(photos_of_noise)

    with pytest.raises(attrib.ReportError, match="another run is writing"):
        make(photos_of_noise, on_progress=again)


def test_another_report_in_the_folder_is_refused_and_stays(make: Make, photos_of_noise: Path) -> None:
    from tests.reports.conftest import tiny_model, write_pictures

    folder = make(photos_of_noise).folder
    before = contents(folder)
    write_pictures(photos_of_noise.parent / "others", ["a.png"])
    for options, why in (
        ({"inputs": photos_of_noise.parent / "others"}, "its inputs is"),
        ({"settings": {"lrp": {"preset": "epsilon"}}}, "its lrp has preset = 'auto', not 'epsilon'"),
        ({"models": tiny_model(1)}, "other weights of tiny"),
        ({"batch": 3}, "its batch is 2, not 3"),
    ):
        with pytest.raises(attrib.ReportError, match=f"another report: .*{why}.*choose another folder"):
            make(**({"inputs": photos_of_noise} | options))
    with pytest.raises(attrib.ReportError, match=r"no manifest.json in it, but 7 other files, '0.png' first"):
        make(photos_of_noise, "photos")
    assert contents(folder) == before


def test_a_read_only_folder_is_named(make: Make, photos_of_noise: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(photos_of_noise).folder
    before, honest = contents(folder), Path.open

    def read_only(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode != "r" and mode != "rb":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return honest(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(attrib.ReportError, match="Read-only file system; choose a folder that can be written"):
        make(photos_of_noise)
    monkeypatch.undo()
    assert contents(folder) == before
