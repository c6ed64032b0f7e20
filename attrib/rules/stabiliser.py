"""How a denominator is kept away from zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attrib.errors import InputError


@dataclass(frozen=True)
class Stabiliser:
    """s(d) = sgn(d) · (|d| + ε), or sgn(d) · max(|d|, ε); sgn(0) = +1.

    epsilon: ε, at least 0. how: "shift" adds it (Bach et al. 2015, eq. 58), "clip" is the maximum.
    unit: "absolute": ε is in units of d; "rms": in units of √(mean of d² over all axes but the batch's).
    zennit calls the last two clip and norm_scale.
    """

    epsilon: float = 1e-6
    how: Literal["shift", "clip"] = "shift"
    unit: Literal["absolute", "rms"] = "absolute"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise InputError(f"a stabiliser must be a finite number of at least 0, got {self.epsilon}")
        if self.how not in ("shift", "clip") or self.unit not in ("absolute", "rms"):
            raise InputError(f"how is shift or clip and unit is absolute or rms, got {self.how!r} and {self.unit!r}")

    @staticmethod
    def of(value: float | Stabiliser) -> Stabiliser:
        """A number is the ε of a shift."""
        return value if isinstance(value, Stabiliser) else Stabiliser(value)

    def added(self, size: Tensor) -> float | Tensor:
        """|s(d)| − |d|; size: |d|, (batch, …)."""
        least: float | Tensor = self.epsilon
        if self.unit == "rms":
            least = self.epsilon * size.square().mean(tuple(range(1, size.dim())), keepdim=True).sqrt()
        if self.how == "shift":
            return least
        return torch.sub(least, size).clamp_min_(0) if isinstance(least, Tensor) else (least - size).clamp_min_(0)
