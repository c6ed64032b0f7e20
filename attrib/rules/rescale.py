"""DeepLIFT's rescale rule: multipliers Δy/Δz between an input and its baseline, for activations and max-pools."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrib.rules.call import Call
from attrib.rules.elementwise import out_of_place
from attrib.rules.rectifiers import multiplied
from attrib.rules.ruled import ruled
from attrib.rules.trace import recorded

_CLOSE = 1e-10  # |Δz| below which the derivative stands for Δy/Δz, as in captum


def rescale(call: Call) -> Any:
    """m = Δy/Δz; where Δz vanishes, f′(z) — Shrikumar et al. 2017, rescale rule."""
    reference = recorded(call)
    function, settings = out_of_place(call)

    def compute(z: Tensor) -> Any:
        if call.kind == "relu" and z.dtype != torch.float16:
            y, multiplier = _rectified(z, reference, call.in_place)
            return y, (multiplier,), multiplied
        step = z - reference
        y = function(z, **settings)
        multiplier = _quotient(y - function(reference, **settings), step, _slope(function, settings, z))
        return (z.copy_(y) if call.in_place else y), (multiplier,), torch.mul

    return ruled(compute, call.x)


_TINY = 1e-30  # added to Δy·1[y>0] and to Δz it makes 0/0 the slope, and changes no other quotient


def _rectified(z: Tensor, reference: Tensor, in_place: bool) -> tuple[Tensor, Tensor]:
    """(relu(z), its multiplier). Works in place where it can: on a CPU new memory costs more than arithmetic."""
    y0 = reference.clamp_min(0)
    step = _below(reference, z).add_(_TINY)
    y = z.clamp_min_(0) if in_place else z.clamp_min(0)
    return y, _below(y0, y).add_(y.clamp_max(_TINY)).div_(step)


def _below(reference: Tensor, value: Tensor) -> Tensor:
    """reference − value, in the reference's own memory when its shape allows; nobody needs it afterwards."""
    return reference.sub_(value) if reference.shape == value.shape else reference - value


def _quotient(difference: Tensor, step: Tensor, limit: Tensor) -> Tensor:
    """difference/step, going over into `limit` where |step| falls below 1e-10; without masks, slow on a CPU."""
    dtype = difference.dtype
    wide = torch.promote_types(dtype, torch.float32)  # in half precision 1e-10² is 0
    difference, step, limit = difference.to(wide), step.to(wide), limit.to(wide)
    return (difference * step).add_(limit, alpha=_CLOSE**2).div_((step * step).add_(_CLOSE**2)).to(dtype)


def _slope(function: Any, settings: dict[str, Any], z: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = z.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(function(leaf, **settings).sum(), leaf)
    return slope


_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def rescale_max_pool(call: Call) -> Any:
    """Δy goes to the input's maximum where y ≥ y₀, else to the baseline's; over Δz — captum's cross-max rule."""
    n = call.x.dim() - 2
    if call.argument(6, "return_indices", False) or f"max_pool{n}d" not in torch.overrides.resolve_name(call.function):
        return NotImplemented
    reference = recorded(call)
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    settings = {k: call.argument(i + 1, k) for i, k in enumerate(names) if call.argument(i + 1, k) is not None}

    def compute(z: Tensor) -> Any:
        y, where = _POOLS[n](z, **settings, return_indices=True)
        y0, where0 = _POOLS[n](reference, **settings, return_indices=True)
        wide = torch.promote_types(z.dtype, torch.float32)
        taken = torch.where(y >= y0, where, where0)
        difference, step = (y0.to(wide) - y).add_(_TINY), _below(reference.to(wide), z).add_(_TINY)

        def pull(c: Tensor, difference: Tensor, taken: Tensor, step: Tensor) -> Tensor:
            return _scattered(c * difference, taken, step, settings).div_(step).to(c.dtype)

        return y, (difference, taken, step), pull

    return ruled(compute, call.x)


def _scattered(values: Tensor, where: Tensor, like: Tensor, settings: dict[str, Any]) -> Tensor:
    """Zeros shaped like `like`, to which each of `values` is added at its place `where` in its own plane."""
    if like.dim() == 4:  # max-pooling's own backward does this, and in any memory layout
        of = {name: _each(value, 2) for name, value in settings.items() if name != "ceil_mode"}
        kernel, step = of["kernel_size"], of.get("stride") or of["kernel_size"]
        ceil_mode = settings.get("ceil_mode", False)
        geometry = (kernel, step, of.get("padding", [0, 0]), of.get("dilation", [1, 1]), ceil_mode)
        scattered: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(values, like, *geometry, where)
        return scattered
    flat = torch.zeros_like(like, memory_format=torch.contiguous_format).flatten(2)
    return flat.scatter_add_(2, where.flatten(2), values.flatten(2)).view_as(like)


def _each(value: Any, n: int) -> list[int]:
    return [value] * n if isinstance(value, int) else list(value)
