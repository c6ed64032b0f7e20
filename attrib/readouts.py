"""How activations and gradients of a layer become a map: pure functions of (batch, channel, height, width)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """relu(Σ_c mean_ij(g_c) A_c) — Selvaraju et al. 2017, eq. 1 and 2."""
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * activation).sum(1).relu()


def grad_cam_plus_plus(activation: Tensor, gradient: Tensor) -> Tensor:
    """relu(Σ_c w_c A_c), w_c = Σ_ij g² / (2 g² + ΣA_c g³) · relu(g) — Chattopadhyay et al. 2018.

    The outer function is taken as exp, as everywhere, so that higher derivatives are powers of g.
    """
    square = gradient.square()
    below = 2 * square + activation.sum((2, 3), keepdim=True) * square * gradient + 1e-6
    alpha = torch.where(gradient != 0, square / below, torch.zeros_like(below))
    weights = (alpha * gradient.relu()).sum((2, 3), keepdim=True)
    return (weights * activation).sum(1).relu()


def layer_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """relu(Σ_c relu(g) ⊙ A) — Jiang et al. 2021."""
    return (gradient.relu() * activation).sum(1).relu()


@dataclass(frozen=True)
class Geometry:
    """Which parameters a layer has at each position: a kernel over groups of channels.

    Every virtual layer of NormGrad is one of these; its per-position gradient is, group by group, the outer
    product of the patch of x under the kernel with g. `constant`: the patch is the number 1 (a bias).
    """

    groups: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, right, top, bottom
    padding_mode: str = "constant"
    dilation: tuple[int, int] = (1, 1)
    constant: bool = False


@dataclass(frozen=True)
class _Extent:
    """Statistics of a group's vector at each position, (batch, group, height, width) each."""

    total: Tensor
    square: Tensor
    positive_square: Tensor
    negative_square: Tensor
    highest: Tensor
    lowest: Tensor


def norm_grad(activation: Tensor, gradient: Tensor, geometry: Geometry, aggregate: str) -> Tensor:
    """Aggregate of the virtual layer's per-position parameter gradients — Rebuffi et al. 2020.

    In closed form: the outer product of patch p and gradient g has norm ‖p‖‖g‖, sum (Σp)(Σg) and so on, so that
    its C² entries are never built. (batch, height, width) on the grid of `gradient`.
    """
    of_gradient = _channels(gradient, geometry.groups)
    if geometry.constant:
        one = torch.ones_like(of_gradient.total)
        return AGGREGATES[aggregate](_Extent(one, one, one, torch.zeros_like(one), one, one), of_gradient)
    return AGGREGATES[aggregate](_patches(activation, geometry), of_gradient)


def _channels(x: Tensor, groups: int) -> _Extent:
    x = x.reshape(len(x), groups, -1, *x.shape[2:])
    return _Extent(
        x.sum(2), x.square().sum(2), x.relu().square().sum(2), (-x).relu().square().sum(2), x.amax(2), x.amin(2)
    )


def _patches(x: Tensor, geometry: Geometry) -> _Extent:
    mode = {"zeros": "constant"}.get(geometry.padding_mode, geometry.padding_mode)
    x = F.pad(x, geometry.padding, mode=mode) if any(geometry.padding) else x
    point = _channels(x, geometry.groups)
    if geometry.kernel == (1, 1) and geometry.stride == (1, 1):
        return point
    size, step, gap = geometry.kernel, geometry.stride, geometry.dilation
    window = torch.ones(1, 1, *size, dtype=x.dtype, device=x.device).expand(geometry.groups, 1, *size)

    def add(t: Tensor) -> Tensor:
        return F.conv2d(t, window, stride=step, dilation=gap, groups=geometry.groups)

    def largest(t: Tensor) -> Tensor:
        return F.max_pool2d(t, size, step, dilation=gap)

    return _Extent(
        add(point.total),
        add(point.square),
        add(point.positive_square),
        add(point.negative_square),
        largest(point.highest),
        -largest(-point.lowest),
    )


def _sum(p: _Extent, g: _Extent) -> Tensor:
    """Σ p_i g_j = (Σp)(Σg)."""
    return (p.total * g.total).sum(1)


def _norm(p: _Extent, g: _Extent) -> Tensor:
    """‖p gᵀ‖ = ‖p‖‖g‖."""
    return (p.square * g.square).sum(1).sqrt()


def _filter_norm(p: _Extent, g: _Extent) -> Tensor:
    """‖(p gᵀ)⁺‖² = ‖p⁺‖²‖g⁺‖² + ‖p⁻‖²‖g⁻‖²."""
    return (p.positive_square * g.positive_square + p.negative_square * g.negative_square).sum(1).sqrt()


def _max(p: _Extent, g: _Extent) -> Tensor:
    """The largest product is one of the four of the extremes."""
    corners = [a * b for a in (p.highest, p.lowest) for b in (g.highest, g.lowest)]
    return torch.stack(corners).amax(0).amax(1)


AGGREGATES: dict[str, Callable[[_Extent, _Extent], Tensor]] = {
    "sum": _sum,
    "norm": _norm,
    "filter_norm": _filter_norm,
    "max": _max,
}


def normalised(maps: Tensor) -> tuple[Tensor, Tensor]:
    """(m − min)/(max − min) of each sample, and which samples are constant, (batch,); those become zero."""
    low = maps.amin((1, 2), keepdim=True)
    spread = maps.amax((1, 2), keepdim=True) - low
    constant = (spread == 0)[:, 0, 0]
    return (maps - low) / torch.where(spread == 0, torch.ones_like(spread), spread), constant


def combined(maps: Sequence[Tensor], size: tuple[int, int], combine: str, weights: Tensor) -> tuple[Tensor, Tensor]:
    """One map at `size` from several layers' maps, and which of them were constant, (layers, batch).

    Each is resized, then normalised to [0, 1] per sample. product: Π m; geometric: Π m^w; sum: Σ w m, with w
    adding up to 1 over the maps that are not constant. A constant map says nothing and is left out.
    """
    resized = [F.interpolate(m[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] for m in maps]
    scaled = [normalised(m) for m in resized]
    constant = torch.stack([c for _, c in scaled])
    stack = torch.stack([m for m, _ in scaled])
    share = weights.to(stack)[:, None] * ~constant
    share = (share / share.sum(0).clamp_min(1e-12))[:, :, None, None]
    if combine == "sum":
        return (share * stack).sum(0), constant
    neutral = torch.where(constant[:, :, None, None], torch.ones_like(stack), stack)
    result = neutral.prod(0) if combine == "product" else neutral.pow(share).prod(0)
    return torch.where(constant.all(0)[:, None, None], torch.zeros_like(result), result), constant
