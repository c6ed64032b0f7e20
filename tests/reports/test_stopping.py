"""A run stops between the chunks of a method, and reads files that are open already."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import attrib
from attrib.reports import Report


class Enough(Exception):
    """What a caller's progress raises; it is nobody else's."""


def test_what_progress_raises_within_a_method_stops_it_there(
    make: Callable[..., Report], photos_of_noise: Path, without_pages: None
) -> None:
    told: list[tuple[int, str]] = []

    def stop(done: int, total: int | None, message: str) -> None:
        told.append((done, message))
        if len([1 for _, said in told if said == "explaining"]) == 6:
            raise Enough

    slow = attrib.Occlusion(window=4, stride=2)
    with pytest.raises(Enough):
        make(photos_of_noise, methods=[slow], batch=16, on_progress=stop)
    assert told[-1][0] < 7  # the first batches were kept, the one that was stopped was not counted
    finished = make(photos_of_noise, methods=[slow], batch=16)
    assert finished.counts["rows"] == 14
    assert finished.failed == 0  # what was stopped is no failure


def test_an_open_file_is_read_as_its_format_says(make: Callable[..., Any], without_pages: None) -> None:
    lines = io.BytesIO(b'{"path": "nowhere.png", "id": "a"}\n')
    made = make(lines, format="jsonl")
    assert [row.name for row in made.rows()] == ["a", "a", "a", "a"]
    assert "not there" in next(made.failures()).error
