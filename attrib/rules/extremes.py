"""Maxima: of two, over axes, over whole pictures; and |x|."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attrib.rules.call import Call, carries
from attrib.rules.elementwise import finite
from attrib.rules.ledger import booking
from attrib.rules.rescale import rescale
from attrib.rules.ruled import on_relevance, ruled
from attrib.rules.trace import recorded


def conserved(call: Call) -> Any:
    """LRP takes the gradient of maxima, which are positively homogeneous; what a constant wins is booked as bias."""
    output, other = call.plain(), call.argument(1, "other")
    if not isinstance(other, Tensor) or (carries(call.x) and carries(other)):
        return output
    signal, constant = (call.x, other) if carries(call.x) else (other, call.x)
    won = (constant == output.detach()).to(constant.dtype) * (
        1 - 0.5 * (constant == signal.detach())
    )  # a tie is shared
    on_relevance(output, booking(call.engine.ledger, "bias", finite(constant.detach() * won)))
    return output


def opened_extreme(call: Call) -> Any:
    """max(a, b) = b + relu(a − b), min(a, b) = a − relu(a − b)."""
    other, name = call.argument(1, "other"), call.function.__name__
    if not isinstance(other, Tensor):
        return NotImplemented
    least = name in ("min", "minimum", "fmin")
    return call.engine.under(lambda: (call.x if least else other) + (-1 if least else 1) * torch.relu(call.x - other))


def extreme(call: Call) -> Any:
    """Maxima of two, over axes and over whole pictures, and |x|."""
    name, axes, keep = call.function.__name__, call.argument(1, "dim"), call.argument(2, "keepdim", False)
    if name in ("abs", "abs_", "absolute"):
        return NotImplemented if call.x.is_complex() else rescale(call)
    if name.startswith("adaptive_max_pool"):
        n = int(name[-2])
        if {axes} - {1} if isinstance(axes, int) else set(axes) - {1}:
            return NotImplemented
        return _largest(call, tuple(range(-n, 0)), True)
    if name == "amax" and axes not in (None, ()):
        return _largest(call, (axes,) if isinstance(axes, int) else tuple(axes), keep)
    return opened_extreme(call)


def _largest(call: Call, axes: tuple[int, ...], keep: bool) -> Any:
    """Δy goes to the input's maximum where y ≥ y₀, else to the baseline's; over Δx there — the rule of max-pooling."""
    reference = recorded(call)

    def compute(x: Tensor) -> Any:
        y, y0 = x.amax(axes, keepdim=True), reference.amax(axes, keepdim=True)
        chosen = torch.where(y >= y0, x == y, reference == y0)
        chosen = chosen / chosen.sum(axes, keepdim=True)
        step = x - reference
        multiplier = chosen * (y - y0) / step.masked_fill(step == 0, 1.0)
        multiplier = torch.where(y == y0, (x == y) / (x == y).sum(axes, keepdim=True), multiplier)
        shape = y.shape

        def pull(c: Tensor, multiplier: Tensor) -> Tensor:
            return c.reshape(shape) * multiplier

        return (y if keep else y.squeeze(axes)), (multiplier,), pull

    return ruled(compute, call.x)
