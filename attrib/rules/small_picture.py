"""Convolutions of one small picture by oneDNN: torch alone gives these to a slower way of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attrib.rules.onednn import ENOUGH, is_constant, is_plain
from attrib.rules.pointwise import layout_of
from attrib.rules.ruled import frozen
from attrib.rules.sliding import Sliding, can_slide

# of the picture's numbers and of the kernel's side: what torch 2 asks before it takes oneDNN for a single picture
_SMALL = 20_480
_NARROW = 3


def small_convolution(given: Mapping[str, Any]) -> Tensor | None:
    """What `torch.conv2d(**given)` is, with a gradient for the input alone; None where this does not fit."""
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    if not (is_plain(x) and is_constant(weight) and (bias is None or is_constant(bias))):
        return None
    if x.dim() != 4 or weight.dim() != 4 or len(x) != 1 or x.numel() > _SMALL or min(weight.shape[2:]) > _NARROW:
        return None
    how = _sliding(given)
    if how is None or x.shape[1] != weight.shape[1] or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    if how.multiplications(x.shape, weight.shape) < ENOUGH or not can_slide():
        return None
    x = x.contiguous(memory_format=layout_of(x))
    shape, layout = x.shape, layout_of(x)
    return frozen(lambda x: how.outputs(x, weight, bias), lambda c: _pulled(c, weight, how, shape, layout), x)


def _pulled(c: Tensor, weight: Tensor, how: Sliding, shape: torch.Size, layout: torch.memory_format) -> Tensor:
    left_over = how.left_over(weight.shape[2:], shape, c.shape)
    if torch.is_grad_enabled() and c.requires_grad:
        return how.pulled_by_torch(c, weight, left_over)
    return how.pulled(c.contiguous(memory_format=layout), weight, left_over)


def _sliding(given: Mapping[str, Any]) -> Sliding | None:
    padding = given.get("padding", 0)
    if isinstance(padding, str) or given.get("groups", 1) != 1:
        return None
    return Sliding(_pair(padding), _pair(given.get("stride", 1)), _pair(given.get("dilation", 1)), 1)


def _pair(sides: int | tuple[int, ...] | list[int]) -> list[int]:
    each = [sides] if isinstance(sides, int) else list(sides)
    return each * 2 if len(each) == 1 else each
