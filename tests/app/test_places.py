"""What is made for download stays within a bound."""

from __future__ import annotations

import os
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
