"""1×1 convolutions as products of matrices by oneDNN, in the layout in memory that a picture comes in.

On one thread torch gives them to the library that has its matrix products, which is not oneDNN: see `onednn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attrib.rules.onednn import computed, suits
from attrib.rules.ruled import frozen


def pointwise_convolution(given: Mapping[str, Any]) -> Tensor | None:
    """What `torch.conv2d(**given)` is, with a gradient for the input alone; None where this does not fit."""
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    if weight.dim() != 4 or weight.shape[2:] != (1, 1) or x.dim() != 4 or not _does_not_slide(given):
        return None
    if not (fits(x, weight.flatten(1), bias) and (is_packed(x) or x.is_contiguous())):
        return None
    return _differentiable(x, weight.flatten(1), bias)


def fits(x: Tensor, matrix: Tensor, bias: Tensor | None) -> bool:
    """Whether matrix·x + bias at every position is for oneDNN; x: (batch, in, height, width), matrix: (out, in)."""
    return suits(x.movedim(1, -1), matrix, bias)


def _does_not_slide(given: Mapping[str, Any]) -> bool:
    return given.get("groups", 1) == 1 and given.get("stride", 1) in _ONES and given.get("padding", 0) in _NO_PADDING


_ONES = (1, (1,), [1], (1, 1), [1, 1])
_NO_PADDING = (0, (0,), [0], (0, 0), [0, 0], "valid", "same")


def _differentiable(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """`pointwise`, with a gradient for x alone."""
    layout = layout_of(x)
    return frozen(
        lambda x: pointwise(x, matrix, bias),
        lambda c: _differentiable(c.contiguous(memory_format=layout), matrix.t(), None),
        x,
    )


def pointwise(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """matrix·x + bias at every position, (batch, out, height, width), in the layout of x; matrix: (out, in)."""
    batch, _, height, width = x.shape
    if is_packed(x):
        y = computed(rows_of(x), matrix, bias)
        size = (batch, len(matrix), height, width)
        stride = (height * width * len(matrix), 1, width * len(matrix), len(matrix))
        # not a view, of which autograd would forbid changes in place behind a function of our own
        return y.new_empty(0).set_(y.untyped_storage(), y.storage_offset(), size, stride)
    y = x.new_empty(batch, len(matrix), height, width)
    for sample, into in zip(x.flatten(2), y.flatten(2), strict=True):
        into.copy_(computed(matrix, sample.t(), None))
    return y if bias is None else y.add_(bias.view(1, -1, 1, 1))


def rows_of(x: Tensor) -> Tensor:
    """(positions, channels); a view where x is packed."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def is_packed(x: Tensor) -> bool:
    """Whether x lies in memory with its channels innermost."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def layout_of(x: Tensor) -> torch.memory_format:
    return torch.channels_last if is_packed(x) else torch.contiguous_format
