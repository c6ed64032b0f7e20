"""A mode in which what a model computes with constant weights on a CPU goes to oneDNN where that is quicker."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrib.rules.onednn import product, suits
from attrib.rules.pointwise import pointwise_convolution
from attrib.rules.small_picture import small_convolution

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_LINEAR = torch.nn.functional.linear


class QuickProducts(TorchFunctionMode):
    """While it is in force, large `linear`, `addmm` and `conv2d` with constant weights on a CPU go to oneDNN.

    Of convolutions those that torch would not give to it: 1×1, and those of one small picture.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _LINEAR and not kwargs and 2 <= len(args) <= 3:
            bias = args[2] if len(args) == 3 else None
            if suits(args[0], args[1], bias):
                return product(args[0], args[1], bias)
        elif func is torch.addmm and not kwargs and len(args) == 3 and isinstance(args[2], Tensor):
            bias, x, weight = args
            if weight.dim() == 2 and isinstance(bias, Tensor) and bias.dim() == 1 and suits(x, weight.t(), bias):
                return product(x, weight.t(), bias)
        elif func is torch.conv2d:
            given = dict(zip(_CONVOLUTION, args, strict=False)) | (kwargs or {})
            output = pointwise_convolution(given)
            output = small_convolution(given) if output is None else output
            if output is not None:
                return output
        return func(*args, **(kwargs or {}))
