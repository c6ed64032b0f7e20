"""What many tests share: the embedded models, loaded once, and photos. Nothing may change them; every test could."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

import attrib
from attrib.models import VisionModel
from attrib.models import photos as example_photos

# of the processes that tests start; theirs is set below. Threads of several processes on two cores wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

_BROWSER_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps",
]  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Weights and inputs that a test draws are the same whatever ran before it in its process."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The models here are too small for threads to pay, and two workers on two cores would fight."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium where it is installed, else Playwright's; one for all tests, which Playwright insists on."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_BROWSER_FLAGS)
        yield started
        started.close()


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
