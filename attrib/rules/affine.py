"""Convolutions and matrix products as one noun: y = W·x + b, its transpose, and its weights' positive parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attrib.rules.call import Call
from attrib.rules.pointwise import fits, is_packed, pointwise
from attrib.rules.weights import WeightCache

_PACKED = torch.channels_last


@dataclass(frozen=True)
class Geometry:
    """How a convolution slides."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    pointwise: bool = False  # 1×1, nothing slides: a matrix product in channels_last


@dataclass(frozen=True)
class Affine:
    """One call of a linear layer, BatchNorm folded in: y = scale·(W·x + b) + shift.

    geometry: None for a matrix product. scale, shift: (out channels,), None without a folded norm.
    fold: the tensors that scale and shift came from, which name the folded weights in the cache.
    """

    weight: Tensor
    bias: Tensor | None
    geometry: Geometry | None
    cache: WeightCache
    scale: Tensor | None = None
    shift: Tensor | None = None
    fold: tuple[Tensor, ...] = ()

    @staticmethod
    def of(call: Call, cache: WeightCache) -> Affine | None:
        """None for calls that are no plain layer: unbatched input, complex numbers, weights that carry relevance."""
        weight, bias = call.argument(1, "weight"), call.argument(2, "bias")
        if weight.requires_grad or (bias is not None and bias.requires_grad) or weight.is_complex():
            return None
        if call.kind == "linear":
            return Affine(weight, bias, None, cache)
        n = weight.dim() - 2
        if call.x.dim() != weight.dim():
            return None
        stride, padding = _each(call.argument(3, "stride", 1), n), call.argument(4, "padding", 0)
        if call.kind == "conv_transpose":
            dilation, groups = _each(call.argument(7, "dilation", 1), n), call.argument(6, "groups", 1)
            out = tuple(_each(call.argument(5, "output_padding", 0), n))
            return Affine(weight, bias, Geometry(stride, _each(padding, n), dilation, groups, True, out), cache)
        dilation, groups = _each(call.argument(5, "dilation", 1), n), call.argument(6, "groups", 1)
        if isinstance(padding, str):
            spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
            if padding == "same" and any(span % 2 for span in spans):
                return None
            padding = [span // 2 if padding == "same" else 0 for span in spans]
        padding = _each(padding, n)
        pointwise = weight[0, 0].numel() == 1 and groups == 1 and set(stride) == {1} and set(padding) == {0}
        return Affine(weight, bias, Geometry(stride, padding, dilation, groups, pointwise=pointwise), cache)

    def folded(self, scale: Tensor, shift: Tensor, fold: tuple[Tensor, ...]) -> Affine:
        """The same layer with the BatchNorm y = scale·z + shift behind it."""
        return replace(self, scale=scale, shift=shift, fold=fold)

    # --- per channel ---

    def total_bias(self) -> Tensor | None:
        """(out,) everything in y that does not come from x."""
        if self.scale is None:
            return self.bias
        shift = torch.zeros_like(self.scale) if self.shift is None else self.shift
        return shift if self.bias is None else self.bias * self.scale + shift

    def channels(self, values: Tensor) -> Tensor:
        """(out,) values shaped to broadcast over y."""
        return values if self.geometry is None else values.view(-1, *[1] * (self.weight.dim() - 2))

    def per_channel(self, y: Tensor) -> Tensor:
        """y summed over positions: (batch, out), or (…, out) of a matrix product."""
        return y if self.geometry is None else y.flatten(2).sum(2)

    # --- the map and its transpose ---

    def plain(self, x: Tensor) -> Tensor:
        """W·x + b as the model computes it, a folded BatchNorm left out."""
        return self.apply(x, self.laid_out(x), self.bias)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """weight·x + bias with this layer's geometry."""
        if self.geometry is None:
            return torch.nn.functional.linear(x, weight, bias)
        g = self.geometry
        if g.pointwise and weight.dim() == 4 and is_packed(x):
            return _pointwise(x, weight.flatten(1).t(), bias)
        padding = list(g.output_padding) or [0] * len(g.stride)
        return torch.convolution(x, weight, bias, g.stride, g.padding, g.dilation, g.transposed, padding, g.groups)

    def transpose(self, s: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """weightᵀ·s; shape: that of x."""
        if self.geometry is None:
            return s @ weight
        g = self.geometry
        if g.pointwise and weight.dim() == 4 and is_packed(s):
            return _pointwise(s, weight.flatten(1), None)
        # x itself is not needed, but its layout: of a strided 1×1 weight a CPU cannot tell and takes the slow way
        packs = is_packed(s) and len(shape) == 4
        like = torch.empty(shape, dtype=s.dtype, device=s.device, memory_format=_PACKED) if packs else _shaped(s, shape)
        out = list(g.output_padding) or [0] * len(g.stride)
        geometry = (g.stride, g.padding, g.dilation, g.transposed, out, g.groups)
        pulled: Tensor = torch.ops.aten.convolution_backward(s, like, weight, None, *geometry, [True, False, False])[0]
        return pulled

    def pull(self, s: Tensor, shape: torch.Size) -> Tensor:
        """Wᵀ·s with the folded scale."""
        s = s if self.scale is None else s * self.channels(self.scale)
        return self.transpose(s, self.laid_out(s), shape)

    def laid_out(self, x: Tensor) -> Tensor:
        """W in the memory layout of x."""
        slides = self.geometry is not None and not self.geometry.pointwise
        return self.cache.derived("packed", (self.weight,), packed) if slides and is_packed(x) else self.weight

    # --- derived weights ---

    def derived(self, name: str, compute: Any) -> Tensor:
        """compute(folded weight), remembered per model."""
        sources = (self.weight, *self.fold)
        return self.cache.derived(name, sources, lambda *_: packed(compute(self.total_weight())))

    def total_weight(self) -> Tensor:
        """W with the folded scale."""
        if self.scale is None:
            return self.weight
        ones = [1] * (self.weight.dim() - 2)
        if self.geometry is None or not self.geometry.transposed:
            return self.weight * self.scale.view(-1, 1, *ones)
        groups = self.geometry.groups  # each has its rows of the weight, and its share of the scale
        by_group = self.weight.unflatten(0, (groups, -1)) * self.scale.view(groups, 1, -1, *ones)
        whole: Tensor = by_group.flatten(0, 1)
        return whole

    def positive(self) -> Tensor:
        """W⁺."""
        return self.derived("positive", lambda w: w.clamp_min(0))

    def negative(self) -> Tensor:
        """W⁻."""
        return self.derived("negative", lambda w: w.clamp_max(0))


def _each(value: Any, n: int) -> list[int]:
    return [value] * n if isinstance(value, int) else list(value) if len(value) == n else list(value) * n


def _shaped(s: Tensor, shape: torch.Size) -> Tensor:
    return s.new_empty(1).expand(shape)


def _pointwise(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """x·matrix + bias at every position; x packed, matrix: (in, out). The result owns its memory: no view."""
    if fits(x, matrix.t(), bias):
        return pointwise(x, matrix.t(), bias)
    batch, channels, height, width = x.shape
    shape = (batch, matrix.shape[1], height, width)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    rows, into = x.permute(0, 2, 3, 1).reshape(-1, channels), y.permute(0, 2, 3, 1).view(-1, matrix.shape[1])
    if bias is None:
        torch.mm(rows, matrix, out=into)
    else:
        torch.addmm(bias, rows, matrix, out=into)
    return y


def packed(tensor: Tensor) -> Tensor:
    """In channels_last, in which a CPU's backward convolution is up to twice as fast."""
    tensor = tensor.detach()
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
