"""What a ReLU, with or without a ceiling, hands back. z: input, y: output, u: what comes from above."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attrib.rules.call import Call, carries
from attrib.rules.elementwise import identity
from attrib.rules.ruled import ruled


def clamp_bounds(call: Call) -> tuple[Any, Any]:
    """(low, high) of relu, relu6, hardtanh or clamp; None: open."""
    name = _name(call)
    if call.kind == "relu":
        return 0.0, None
    if name == "relu6":
        return 0.0, 6.0
    if name == "hardtanh":
        return call.argument(1, "min_val", -1.0), call.argument(2, "max_val", 1.0)
    if name == "clamp_max":
        return None, call.argument(1, "max")
    return call.argument(1, "min"), call.argument(2, "max")


def _name(call: Call) -> str:
    return getattr(call.function, "__name__", "").strip("_")


def _rectified(call: Call, backward: Callable[[Tensor, Tensor, float | None], Tensor]) -> Any:
    """The call with `backward(u, z or y, ceiling)` as its derivative; NotImplemented where it does not rectify."""
    low, high = clamp_bounds(call)
    if not isinstance(low, (int, float)) or low != 0 or isinstance(high, Tensor):
        return NotImplemented
    # what torch's own derivative reads, too: the model may change the other in place later
    by_output = call.kind == "relu" or (call.in_place and _name(call) in ("relu6", "hardtanh"))

    def compute(z: Tensor) -> Any:
        before = z.clone() if call.in_place and not by_output else z
        y = z.clamp_(0, high) if call.in_place else z.clamp(0, high)
        return y, (y if by_output else before,), lambda u, kept: backward(u, kept, high)

    return ruled(compute, call.x)


@dataclass(frozen=True)
class MaximumWithZero:
    """max(z, 0) with a tensor of zeros is a ReLU in another spelling: `rule`, that of ReLUs, answers it."""

    rule: Callable[[Call], Any]

    def __call__(self, call: Call) -> Any:
        given = call.x, call.argument(1, "other")
        carrying = [x for x in given if carries(x)]
        constant = [x for x in given if isinstance(x, Tensor) and not carries(x)]
        largest = call.function.__name__ in ("max", "maximum", "fmax")
        if not largest or len(carrying) != 1 or len(constant) != 1 or bool(constant[0].any()):
            return NotImplemented
        z = carrying[0].expand(torch.broadcast_shapes(carrying[0].shape, constant[0].shape))
        return self.rule(replace(call, kind="relu", function=torch.relu, args=(z,), kwargs={}))


def guided(call: Call) -> Any:
    """u⁺ ⊙ 1[0<z<h] — Springenberg et al. 2014."""
    return _rectified(call, _guided)


def _guided(u: Tensor, z: Tensor, high: float | None) -> Tensor:
    passed: Tensor = torch.ops.aten.threshold_backward(u, z, 0).clamp_min_(0)
    return passed if high is None else passed * (z < high)


def deconv(call: Call) -> Any:
    """u⁺, whatever z was — Zeiler & Fergus 2014."""
    return _rectified(call, lambda u, kept, high: u.clamp_min(0))


def opened_clamp(call: Call) -> Any:
    """min(max(z, low), high) where the bounds are tensors, which may be part of the signal; both are, where one is."""
    low, high = clamp_bounds(call)
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        return NotImplemented

    def run() -> Tensor:
        y = call.x.clone() if call.in_place else call.x
        y = y if low is None else torch.maximum(y, low)
        return y if high is None else torch.minimum(y, high)

    y = call.engine.under(run)
    return call.x.copy_(y) if call.in_place else y


def passed(call: Call) -> Any:
    """`identity` for a line clamped at 0 and at a ceiling: c · y/z, which is c · min(1, h/z) where z > 0."""
    low, high = clamp_bounds(call)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return opened_clamp(call)
    if not isinstance(low, (int, float)) or low != 0:
        return identity(call)

    def compute(z: Tensor) -> Any:
        ratio = z.clamp(0, high) / z.clamp_min(_least(z.dtype))
        return (z.clamp_(0, high) if call.in_place else z.clamp(0, high)), (ratio,), torch.mul

    return ruled(compute, call.x)


def _least(dtype: torch.dtype) -> float:
    """A positive number below any z that matters: with y = 0 the quotient is 0 for every z ≤ 0. 1e-30 is 0 in half."""
    numbers = torch.finfo(dtype)
    return max(1e-30, numbers.smallest_normal * numbers.eps)


def multiplied(u: Tensor, factor: Tensor) -> Tensor:
    """u ⊙ factor in the factor's memory, which only this node knows: new memory is what costs on a CPU."""
    return factor.mul_(u) if factor.dtype == u.dtype else u * factor


@dataclass(frozen=True)
class ExcitationGate:
    """u ⊙ σ(z/τ); under a ceiling h: u ⊙ (σ(z/τ) − σ((z−h)/τ)), the slope of the softly clamped line.

    temperature: τ, in units of the pre-activation; τ → 0 is the ordinary derivative.
    """

    temperature: float

    def __call__(self, call: Call) -> Any:
        low, high = clamp_bounds(call)
        if not isinstance(low, (int, float)) or low != 0 or isinstance(high, Tensor):
            return NotImplemented

        def compute(z: Tensor) -> Any:
            gate = torch.mul(z, 1 / self.temperature).sigmoid_()
            if high is not None:
                gate -= torch.sigmoid((z - high) / self.temperature)
            y = z.clamp_(0, high) if call.in_place else z.clamp(0, high)
            return y, (gate,), multiplied

        return ruled(compute, call.x)
