"""What many tests share: the embedded models, loaded once, and photos. Nothing may change them; every test could."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import attrib
from attrib.models import VisionModel
from attrib.models import photos as example_photos


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The models here are too small for threads to pay, and two workers on two cores would fight."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def efficientnet() -> VisionModel:
    """The default model: conv, BatchNorm, ReLU6, residual adds."""
    return attrib.load("efficientnet-lite0")


@pytest.fixture(scope="session")
def squeezenet() -> VisionModel:
    """The quick one: conv, ReLU, max-pool; no BatchNorm."""
    return attrib.load("squeezenet1_1")


@pytest.fixture(scope="session")
def photos() -> dict[str, Path]:
    """Example photos by name: cheetah, lion, persian_cat, siamese_cat, tabby_cat, egyptian_cat."""
    return example_photos()


@pytest.fixture(scope="session")
def cheetah(photos: dict[str, Path]) -> Path:
    return photos["cheetah"]


@pytest.fixture(scope="session")
def persian_cat(photos: dict[str, Path]) -> Path:
    return photos["persian_cat"]
