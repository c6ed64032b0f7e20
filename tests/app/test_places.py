"""What is made for download stays within a bound."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import places


def test_the_oldest_go_when_all_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_KEPT", 2500)
    other = tmp_path / "an upload"
    other.write_bytes(bytes(9000))
    made = []
    for second in range(6):
        made.append(places.new_place(tmp_path))
        (made[-1] / "file").write_bytes(bytes(1000))
        os.utime(made[-1], (second, second))
    assert [place.exists() for place in made] == [False, False, False, True, True, True]
    assert other.exists()


def test_a_folder_that_goes_while_it_is_measured_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(5))
    walk, gone = os.walk, []

    def slow(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for place in walk(folder):
            yield place
            gone.append(shutil.rmtree(tmp_path / "b", ignore_errors=True))

    monkeypatch.setattr(os, "walk", slow)
    assert places.size(tmp_path) == 5
    assert gone
