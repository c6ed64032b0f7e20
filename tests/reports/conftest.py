"""A tiny network, tiny pictures, and reports on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import attrib
from attrib.models import Preprocessing, VisionModel
from attrib.reports import Report


def tiny_model(seed: int = 0) -> VisionModel:
    """Three classes, 16 × 16 pixels; the same weights for the same seed."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    return attrib.wrap(
        module, name="tiny", preprocessing=Preprocessing(16, 16), labels=["cat", "dog", "=cmd|' /C calc'"]
    )


def write_pictures(folder: Path, names: list[str], seed: int = 0) -> None:
    """Random pictures, no two of them the same."""
    generator = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def photos_of_noise(tmp_path: Path) -> Path:
    """Seven pictures in a folder."""
    write_pictures(tmp_path / "photos", [f"{i}.png" for i in range(7)])
    return tmp_path / "photos"


@pytest.fixture
def without_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without HTML and PDF, for tests of everything else: drawing takes most of the time of tiny ones."""
    monkeypatch.setattr("attrib.reports.closing.close_report", lambda *_: None)
    monkeypatch.setattr("attrib.reports.entry_files.write_entries", lambda *_: None)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Report]:
    """attrib.report with the tiny model, two quick methods, two targets and batches of 2, into tmp_path/NAME."""

    def made(inputs: Any, name: str = "report", methods: Any = ("saliency", "lrp"), **options: Any) -> Report:
        given = {"models": tiny_model(), "targets": ["item", "dog"], "batch": 2} | options
        return attrib.report(inputs, methods=methods, out=tmp_path / name, **given)

    return made
