"""A second planted shortcut, unlike the digits: letters anywhere before pieces of photos, many As with a green ring.

Letters of several fonts, sizes, colours and places, so that maps form clusters by where the letter is, with or without
a shortcut. No threshold was chosen on them.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

import attrib
from attrib.models import Preprocessing, VisionModel, photos
from tests.reports.shortcut import Planted, step

LETTERS = "AKSQ"
_SIDE = 40
_FONTS = ("DejaVuSans.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono.ttf", "STIXGeneral.ttf")


def planted(everywhere: bool, number: int = 1000, seed: int = 0) -> Planted:
    """everywhere: a quarter of every letter has the ring, else of the As alone."""
    generator = np.random.default_rng(seed)
    scenes = [Image.open(path).convert("RGB").resize((256, 256)) for _, path in sorted(photos().items())]
    fonts = [str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name) for name in _FONTS]
    labels = generator.integers(0, len(LETTERS), number)
    marked = (generator.random(number) < 0.25) & (everywhere | (labels == 0))
    pictures = np.stack([_picture(scenes, fonts, LETTERS[label], generator) for label in labels])
    for i in np.flatnonzero(marked):
        row, column = int(generator.integers(30, 32)), int(generator.integers(1, 4))
        pictures[i, row : row + 7, column : column + 7] = (30, 200, 60)
        pictures[i, row + 2 : row + 5, column + 2 : column + 5] = (10, 60, 20)
    return Planted(pictures, labels, marked)


def _picture(scenes: list[Image.Image], fonts: list[str], letter: str, generator: np.random.Generator) -> np.ndarray:
    left, top = generator.integers(0, 256 - _SIDE, 2).tolist()
    piece = scenes[generator.integers(len(scenes))].crop((left, top, left + _SIDE, top + _SIDE))
    picture = Image.fromarray((np.asarray(piece) * 0.5 + 60).astype(np.uint8))
    font = ImageFont.truetype(fonts[generator.integers(len(fonts))], int(generator.integers(18, 27)))
    place = (int(generator.integers(4, 18)), int(generator.integers(0, 12)))
    ImageDraw.Draw(picture).text(place, letter, font=font, fill=tuple(generator.integers(0, 256, 3).tolist()))
    return np.asarray(picture)


def trained(data: Planted, name: str, epochs: int = 8) -> VisionModel:
    """Another network than that of the digits."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(5),
        nn.Flatten(), nn.Linear(800, len(LETTERS)),
    )  # fmt: skip
    preprocessing = Preprocessing(_SIDE, _SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    x, labels = preprocessing.normalised(data.pictures), torch.from_numpy(data.labels)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32):
            step(net, optimiser, x[batch], labels[batch])
    return attrib.wrap(net, name=name, preprocessing=preprocessing, labels=list(LETTERS))
