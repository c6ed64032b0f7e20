"""What the first layer of an unknown network takes, found by running the network up to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrib.rules.shadow import shadow
from attrib.rules.vocabulary import KIND


def channels_taken(module: nn.Module, x: Tensor) -> int | None:
    """How many channels the first convolution takes, if pictures shaped like x, (1, ...), go into it as they are.

    Nothing behind it runs. None where nobody can tell: something else comes first, or nothing can run on x.
    """
    looking = _FirstLayer(x.shape)
    try:
        with torch.no_grad(), looking:
            shadow(module)(x.clone())  # which it may change in place
    except _Reached:
        return looking.channels
    except Exception:  # anybody's module, given what may not suit it: the real run will say so
        return None
    return None


class _Reached(Exception):
    """The first layer was about to run."""


class _FirstLayer(TorchFunctionMode):
    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape
        self.channels: int | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = KIND.get(func)
        if kind in ("conv", "linear", "conv_transpose"):
            given = dict(zip(("input", "weight"), args, strict=False)) | (kwargs or {})
            if kind == "conv" and given["input"].shape == self.shape:
                groups = args[6] if len(args) > 6 else given.get("groups", 1)
                self.channels = given["weight"].shape[1] * groups
            raise _Reached
        return func(*args, **(kwargs or {}))
