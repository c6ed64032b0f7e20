"""Values as heatmaps: channels become one number, and pixels as many as a picture has."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from attrib.errors import InputError

_LARGEST = 2**15  # the longest side, in pixels

_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda maps: maps.sum(1),
    "mean": lambda maps: maps.mean(1),
    "max_abs": lambda maps: maps.abs().amax(1),
    "norm": lambda maps: torch.linalg.vector_norm(maps, dim=1),
}


def heatmaps(values: Tensor, reduction: str, size: tuple[int, int] | None) -> Tensor:
    """(batch, height, width): channels of `values` reduced, if it has any, and resized bilinearly to `size`."""
    maps = _REDUCTIONS[reduction](values) if values.dim() == 4 else values
    if size is None or tuple(maps.shape[1:]) == tuple(size):
        return maps
    return torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def sides(size: Any) -> tuple[int, int]:
    """(height, width) in pixels from a pair of whole numbers, or one for both. Raises InputError for anything else."""
    given = size if isinstance(size, (tuple, list)) else (size, size)
    whole = all(isinstance(side, Integral) and not isinstance(side, bool) for side in given)
    if len(given) != 2 or not whole or not all(0 < side <= _LARGEST for side in given):
        raise InputError(f"size = {size!r}: give (height, width) in pixels, whole numbers from 1 to {_LARGEST}, or one")
    return int(given[0]), int(given[1])
