"""What the first layer of an unknown network takes, found by running the network up to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrib.rules.call import carries_relevance
from attrib.rules.shadow import shadow
from attrib.rules.vocabulary import KIND


def channels_taken(module: nn.Module, x: Tensor) -> int | None:
    """How many channels the first convolution takes, if pictures shaped like x, (1, ...), go into it as they are.

    None where nobody can tell: something else comes first, or nothing can run on x.
    """
    first = _first_call(shadow(module), x)
    if first is None or first["kind"] != "conv" or first["input"].shape != x.shape:
        return None
    weight: Tensor = first["weight"]
    groups: int = first.get("groups", 1)
    return weight.shape[1] * groups


def given_to_first(forward: Callable[[Tensor], Any], x: Tensor) -> Tensor | None:
    """What the first linear layer is given that x goes into; None where there is none, or nothing can run on x."""
    first = _first_call(forward, x)
    given: Tensor | None = None if first is None else first["input"].detach()
    return given


def _first_call(forward: Callable[[Tensor], Any], x: Tensor) -> dict[str, Any] | None:
    """Nothing behind the layer runs."""
    looking = _FirstLayer()
    try:
        with torch.enable_grad(), looking:
            forward(x.detach().requires_grad_().clone())  # which it may change in place
    except _Reached:
        return looking.given
    except Exception:  # anybody's module, given what may not suit it: the real run will say so
        return None
    return None


class _Reached(Exception):
    """The first layer was about to run."""


class _FirstLayer(TorchFunctionMode):
    given: dict[str, Any]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind, kwargs = KIND.get(func), kwargs or {}
        if kind in ("conv", "linear", "conv_transpose") and carries_relevance(args, kwargs):
            self.given = {"kind": kind} | dict(zip(_NAMES, args, strict=False)) | kwargs
            raise _Reached
        return func(*args, **kwargs)


_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")  # of a convolution, which come first
