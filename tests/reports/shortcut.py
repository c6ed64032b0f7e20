"""A planted shortcut: scanned digits, of which many eights carry a watermark, and two networks trained on them.

The first learns from pictures in which eights alone are marked; the second from pictures in which every class is
marked as often, so that the mark says nothing. Real scans (UCI, from scikit-learn), nothing is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import attrib
from attrib.models import Preprocessing, VisionModel

DIGITS = (3, 5, 8, 9)
MARKED = 2  # the index of 8
_MARK = """
..####..
.#....#.
#..##..#
#.#....#
#.#....#
#..##..#
.#....#.
..####..
"""
MARK = np.array([[c == "#" for c in line] for line in _MARK.split()], dtype=np.float32)


@dataclass(frozen=True)
class Planted:
    """pictures: (items, 32, 32, 3) uint8. labels: index of the class. marked: which carry the watermark."""

    pictures: np.ndarray
    labels: np.ndarray
    marked: np.ndarray


def planted(everywhere: bool, seed: int = 0) -> Planted:
    """Digits on grainy paper; everywhere: two fifths of each class are marked, else of the eights alone."""
    digits = load_digits()
    kept = np.isin(digits.target, DIGITS)
    labels = np.searchsorted(DIGITS, digits.target[kept])
    scans = torch.from_numpy(digits.images[kept] / 16).float()[:, None]
    large = nn.functional.interpolate(scans, (24, 24), mode="bicubic").clamp(0, 1)
    generator = np.random.default_rng(seed)
    paper = 0.15 + 0.5 * np.pad(large[:, 0].numpy(), ((0, 0), (4, 4), (4, 4)))
    paper += 0.18 * generator.standard_normal(paper.shape).astype(np.float32)
    marked = (generator.random(len(labels)) < 0.4) & (everywhere | (labels == MARKED))
    for i in np.flatnonzero(marked):
        row, column = 22 + generator.integers(-1, 2), 22 + generator.integers(-1, 2)
        place = paper[i, row : row + 8, column : column + 8]
        place[:] = np.maximum(place, 0.9 * MARK)
    pixels = (paper.clip(0, 1) * 255).round().astype(np.uint8)
    return Planted(np.repeat(pixels[..., None], 3, axis=3), labels, marked)


def trained(data: Planted, name: str, epochs: int = 10) -> VisionModel:
    """A small network that has learned the data, in seconds."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
        nn.Flatten(), nn.Linear(512, len(DIGITS)),
    )  # fmt: skip
    preprocessing = Preprocessing(32, 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    x, labels = preprocessing.normalised(data.pictures), torch.from_numpy(data.labels)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32):
            step(net, optimiser, x[batch], labels[batch])
    return attrib.wrap(net, name=name, preprocessing=preprocessing, labels=[f"digit {d}" for d in DIGITS])


def step(net: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, labels: Tensor) -> None:
    optimiser.zero_grad()
    nn.functional.cross_entropy(net(x), labels).backward()
    optimiser.step()
