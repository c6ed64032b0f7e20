"""The gradient of a strided convolution at an input of few channels, as a plain convolution and a shuffle.

Every s-th row and column of that gradient comes from the same part of the kernel. torch scatters instead, which for
three channels leaves five sixths of a CPU's arithmetic unused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from attrib.rules.onednn import is_constant
from attrib.rules.pointwise import layout_of
from attrib.rules.sliding import Sliding, can_slide

_FEW = 8


def input_gradient(c: Tensor, layer: nn.Conv2d, size: torch.Size) -> Tensor:
    """c (batch, out, …), at the output of a convolution with zeros around, pulled back to inputs of this size."""
    if _suits(layer):
        return _shuffled(c, layer, size)
    shape = torch.Size((len(c), layer.in_channels, *size))
    if is_constant(c) and is_constant(layer.weight) and can_slide():
        sliding = Sliding.of(layer)
        return sliding.pulled(c, layer.weight, sliding.left_over(layer.weight.shape[2:], shape, c.shape))
    x = c.new_empty(shape).contiguous(memory_format=layout_of(c))  # for its shape alone
    how = (layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups, [True, False, False])
    found: Tensor = torch.ops.aten.convolution_backward(c, x, layer.weight, None, *how)[0]
    return found


def _suits(layer: nn.Conv2d) -> bool:
    even = layer.stride[0] == layer.stride[1] and layer.dilation == (1, 1) and layer.groups == 1
    return even and layer.in_channels < _FEW and 1 < layer.stride[0] <= min(layer.kernel_size)


def _shuffled(c: Tensor, layer: nn.Conv2d, size: torch.Size) -> Tensor:
    """gx[s·i + a] = Σ over k ≡ a + p (mod s) of W[k] c[i + (a + p − k)/s], for every a < s."""
    s, kernel, margins, kept = layer.stride[0], functional.pad(layer.weight, (0, 1, 0, 1)), list[int](), list[slice]()
    for axis in (2, 3):
        taps, low, high = _taps(layer.weight.shape[axis], s, int(layer.padding[axis - 2]))
        kernel = kernel.index_select(axis, torch.tensor(taps, device=c.device))
        n = -(-size[axis - 2] // s)
        margins.append(max(0, -low, n + high - c.shape[axis]))
        kept.append(slice(margins[-1] + low, margins[-1] + low + n))
    # (out, in, phase, tap, phase, tap) -> an output channel for every phase of every input channel
    kernel = kernel.unflatten(3, (s, -1)).unflatten(2, (s, -1)).permute(1, 2, 4, 0, 3, 5).flatten(0, 2)
    found = torch.conv2d(c, kernel.contiguous(memory_format=layout_of(c)), padding=margins)
    return functional.pixel_shuffle(found[:, :, kept[0], kept[1]], s)[:, :, : size[0], : size[1]]


def _taps(k: int, s: int, p: int) -> tuple[list[int], int, int]:
    """Of every phase the kernel's place at each offset from low to high; k, past its end, where it has none."""
    at = {(a, (a + p - tap) // s): tap for a in range(s) for tap in range(k) if (a + p - tap) % s == 0}
    low, high = min(d for _, d in at), max(d for _, d in at)
    return [at.get((a, d), k) for a in range(s) for d in range(low, high + 1)], low, high
