"""The widest numbers that a device has."""

from __future__ import annotations

import torch
from torch import Tensor


def widest(device: torch.device) -> torch.dtype:
    """float64; float32 on Apple's GPUs, which have nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def wide(tensor: Tensor) -> Tensor:
    """The same numbers as wide as their device has them, for sums that should not lose the small ones."""
    return tensor.to(widest(tensor.device))
