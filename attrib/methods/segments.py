"""A picture cut into regions: a grid, or superpixels of like colour."""

from __future__ import annotations

import torch
from torch import Tensor

from attrib.methods.passes import value_range

SEGMENTS = ("grid", "slic")
_ROUNDS = 10
# how much a step of one cell counts against the whole range of colours
_COMPACTNESS = 0.8


def grid(image: Tensor, n: int) -> Tensor:
    """(height, width) long: about n equal rectangles, numbered row by row."""
    height, width = image.shape[1:]
    down = max(1, min(height, round((n * height / width) ** 0.5)))
    across = max(1, min(width, round(n / down)))
    rows = torch.arange(height) * down // height
    columns = torch.arange(width) * across // width
    cells: Tensor = rows[:, None] * across + columns
    return cells


def superpixels(image: Tensor, n: int) -> Tensor:
    """(height, width) long: k-means of colour and place from a grid of seeds. Achanta et al. 2012 (SLIC).

    Every pixel may go to its own cell's centre or one of the eight around it. Regions are numbered without gaps.
    """
    pixels = image.detach().cpu().double()
    cells = grid(image, n)
    across = int(cells[0, -1]) + 1
    down = int(cells[-1, 0]) // across + 1
    height, width = cells.shape
    y, x = torch.meshgrid(
        torch.arange(height).double() * down / height, torch.arange(width).double() * across / width, indexing="ij"
    )
    spread = value_range(pixels[None]).clamp_min(1e-12)[0]
    points = torch.cat([pixels / spread / _COMPACTNESS, y[None], x[None]]).flatten(1).T
    near = _neighbours(cells.flatten(), down, across)
    labels = cells.flatten()
    for _ in range(_ROUNDS):
        sums = torch.zeros(down * across, points.shape[1], dtype=points.dtype).index_add_(0, labels, points)
        centres = sums / torch.bincount(labels, minlength=down * across).clamp_min(1)[:, None]
        distances = torch.stack([(points - centres[near[:, k]]).square().sum(1) for k in range(9)], 1)
        labels = near.gather(1, distances.argmin(1, keepdim=True))[:, 0]
    numbered: Tensor = torch.unique(labels, return_inverse=True)[1]
    return numbered.reshape(height, width)


def _neighbours(cells: Tensor, down: int, across: int) -> Tensor:
    """(pixels, 9): the pixel's cell and those around it, the border's repeated."""
    steps = torch.tensor([(0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])
    rows = (cells[:, None] // across + steps[:, 0]).clamp(0, down - 1)
    columns = (cells[:, None] % across + steps[:, 1]).clamp(0, across - 1)
    around: Tensor = rows * across + columns
    return around
