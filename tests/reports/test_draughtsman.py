"""Items are drawn by another process as they are here, and all of them whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attrib.reports import Report, draughtsman
from attrib.reports.identity import contents
from attrib.reports.store import Store

Make = Callable[..., Report]


@pytest.fixture
def drawn_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The items that this process draws, and not the other."""
    drawn: list[str] = []
    honest = draughtsman.draw

    def counting(store: Store, items: tuple[str, ...]) -> None:
        drawn.extend(items)
        honest(store, items)

    monkeypatch.setattr(draughtsman, "draw", counting)
    return drawn


def test_another_process_draws_the_same_files(
    make: Make, photos_of_noise: Path, monkeypatch: pytest.MonkeyPatch, drawn_here: list[str]
) -> None:
    whole = contents(make(photos_of_noise, "whole").folder)
    assert len(drawn_here) == 7
    drawn_here.clear()
    monkeypatch.setattr(draughtsman, "FEW", 2)
    assert contents(make(photos_of_noise, "shared").folder) == whole
    assert drawn_here == []


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "import os; os.read(0, 1); os.write(1, b'.')"])
def test_what_the_other_process_leaves_is_drawn_here(
    make: Make, photos_of_noise: Path, monkeypatch: pytest.MonkeyPatch, drawn_here: list[str], program: str
) -> None:
    monkeypatch.setattr(draughtsman, "FEW", 1)
    monkeypatch.setattr(draughtsman, "_TOGETHER", 2)
    monkeypatch.setattr(draughtsman, "_CODE", program)
    report = make(photos_of_noise)
    # the second program draws nothing and says it did: pages that are missing at the end are made then
    assert len(drawn_here) in (5, 7)
    assert len(list((report.folder / "items").iterdir())) == 7
