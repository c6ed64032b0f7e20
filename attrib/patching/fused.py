"""Activations that a model spells out in several passes over memory, run as the one function that they equal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrib.rules.spelled import is_activation

_FUSED: tuple[Callable[[Tensor], Tensor], ...] = (F.gelu, partial(F.gelu, approximate="tanh"), F.silu, F.relu)
_SAME = 1e-12  # in float64, where two different activations differ by more than 1e-4 somewhere on the grid


def fuse_activations(twin: nn.Module) -> None:
    """Let every activation of `twin` that behaves like one of torch's be that one: up to ten times as fast on a CPU."""
    for module in twin.modules():
        spelled = not type(module).__module__.startswith("torch.nn") and not list(module.children())
        if spelled and not module._parameters and not module._buffers and is_activation(module):
            fused = _equal_to(module)
            if fused is not None:
                module.__dict__["forward"] = fused


def _equal_to(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    grid = torch.linspace(-12, 12, 481, dtype=torch.float64)
    values = module(grid)
    for function in _FUSED:
        if values.dtype == grid.dtype and bool((values - function(grid)).abs().max() <= _SAME):
            return function
    return None
