"""Activations that a module spells out of primitives, found by how they behave, never by their class."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from attrib.rules.vocabulary import elementwise_activation

_POINTS = (-2.5, -0.7, 0.3, 1.1, 4.0)


def unite_activations(twin: nn.Module) -> None:
    """Make every activation module of `twin` one operation, so that a rule sees it whole."""
    found: dict[Any, bool] = {}  # every layer has the same one
    for module in filter(_may_be_activation, twin.modules()):
        kind = _kind(module)
        if kind not in found:
            found[kind] = is_activation(module)
        if found[kind]:
            module.forward = partial(_as_one, module.forward)


def _as_one(forward: Callable[..., Any], x: torch.Tensor) -> torch.Tensor:
    return elementwise_activation(x, forward)


def _may_be_activation(module: nn.Module) -> bool:
    """torch's own activations are single functions already."""
    if type(module).__module__.startswith("torch.nn") or next(module.children(), None) is not None:
        return False
    return not module._parameters and not module._buffers


def _kind(module: nn.Module) -> Any:
    """What modules share that cannot but behave alike: their class and the very same attributes."""
    tables = (dict, set)  # torch's own are each module's, and empty
    own = (item for item in module.__dict__.items() if not isinstance(item[1], tables) or item[1])
    return type(module), *((name, id(value)) for name, value in own)


def is_activation(module: nn.Module) -> bool:
    """Whether the module maps each number to another by itself, and is not the identity."""
    points = torch.tensor(_POINTS)
    try:
        with torch.no_grad():
            together = module(points)
            apart = torch.cat([module(point[None]) for point in points])
    except Exception:  # anybody's module, called with what it may not take
        return False
    if not isinstance(together, torch.Tensor) or together.shape != points.shape:
        return False
    return bool(torch.allclose(together, apart, atol=1e-6)) and not torch.equal(together, points)
