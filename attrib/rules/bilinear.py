"""DeepLIFT through products, quotients, norms and attention: exact differences, so that completeness holds there too.

Between baseline (a₀, b₀) and input (a, b): Δ(ab) = Δa·(b + b₀)/2 + (a + a₀)/2·Δb. Each factor gets the mean of what
it adds when it is changed first and when it is changed last (Shapley's value of two players). Norms and attention
are opened into products, powers and one softmax (`lifting`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrib.rules.call import Call
from attrib.rules.homogeneous import is_marked, marked
from attrib.rules.rescale import rescale
from attrib.rules.ruled import ruled
from attrib.rules.trace import carries, recorded, tensors_in

Share = Callable[[Tensor, Tensor], Tensor]


def bilinear(call: Call) -> Any:
    """Products of two: each factor's change is multiplied by the mean of the other's two values.

    A norm's scale r changes last: Δ(ur) = Δu·r + u₀·Δr. Where the baseline is near 0, r₀ is 1/√eps and their mean
    would blow up every multiplier before it.
    """
    places = [place for place, value in enumerate(call.args) if carries(call, value)]
    carrying = sum(carries(call, value) for value in tensors_in((call.args, call.kwargs)))
    if carrying < 2:
        return call.plain()
    if carrying > 2 or len(places) < 2 or call.kwargs:  # given by name or in a list
        return NotImplemented
    tensors = [place for place, value in enumerate(call.args) if isinstance(value, Tensor)]
    values = [(call.args[p], recorded(call, tensors.index(p))) for p in places]
    first, second = (share(*value) for share, value in zip(_shares(call, places), values, strict=True))
    out_of_place = _OUT_OF_PLACE.get(call.function, call.function)
    shares = _with(out_of_place, call.args, {places[1]: second}) + _with(out_of_place, call.args, {places[0]: first})
    exact = _with(out_of_place, call.args, {p: call.args[p].detach() for p in places})
    output = shares + (exact - shares.detach())
    return call.x.copy_(output) if call.in_place else output


_OUT_OF_PLACE = {Tensor.mul_: torch.mul, Tensor.__imul__: torch.mul}


def _shares(call: Call, places: list[int]) -> tuple[Share, Share]:
    """Which value of each factor multiplies the other's change."""
    scales = [is_marked(call.args[place]) for place in places]
    if scales == [False, True]:
        return _before, _after
    return (_after, _before) if scales == [True, False] else (_mean, _mean)


def _mean(value: Tensor, at_baseline: Tensor) -> Tensor:
    return (value.detach() + at_baseline) / 2


def _before(value: Tensor, at_baseline: Tensor) -> Tensor:
    return at_baseline


def _after(value: Tensor, at_baseline: Tensor) -> Tensor:
    return value.detach()


def _with(function: Any, args: tuple[Any, ...], replaced: dict[int, Tensor]) -> Tensor:
    result: Tensor = function(*(replaced.get(place, value) for place, value in enumerate(args)))
    return result


def quotient(call: Call) -> Any:
    """a/b as a · (1/b) where b depends on the input."""
    denominator = call.argument(1, "other")
    if not carries(call, denominator):
        return call.plain()
    if call.kwargs:  # a rounding mode
        return NotImplemented
    output = call.engine.under(lambda: call.x * torch.reciprocal(denominator))
    return call.x.copy_(output) if call.in_place else output


def elementwise(call: Call) -> Any:
    """Roots, powers and reciprocals of one tensor: Δy/Δz."""
    others = (*call.args[1:], *call.kwargs.values())
    if any(carries(call, other) for other in others):
        return NotImplemented
    exponent = call.argument(1, "exponent", 2) if call.kind == "power" else 1
    scale = call.kind == "reciprocal" or (isinstance(exponent, (int, float)) and exponent < 0)
    return marked(rescale(call)) if scale else rescale(call)


def softmax(call: Call) -> Any:
    """Δp = (diag L − L Lᵀ/ΣL) Δx, with L the logarithmic mean Δp/Δ log p of both runs' probabilities.

    Exact: Δp_i = L_i (Δx_i − Δ log Z), and Σ Δp = 0 gives Δ log Z = Σ L Δx/ΣL. It is the Jacobian of softmax at
    probabilities between the two, so no multiplier can explode.
    """
    reference, axis, dtype = recorded(call), call.argument(1, "dim"), call.kwargs.get("dtype")

    def compute(x: Tensor) -> Any:
        logs, logs0 = x.log_softmax(axis, dtype), reference.log_softmax(axis, dtype)
        p, p0, step = logs.exp(), logs0.exp(), logs - logs0
        near = step.abs() < _NEAR
        mean = torch.where(near, (p + p0) / 2, (p - p0) / step.masked_fill(near, 1.0))
        mean = mean.nan_to_num(0.0)  # −∞ − (−∞), where both are masked
        total = mean.sum(axis, keepdim=True)

        def pull(c: Tensor, mean: Tensor, total: Tensor) -> Tensor:
            return (mean * (c - (c * mean).sum(axis, keepdim=True) / total)).to(x.dtype)

        return p, (mean, total), pull

    return ruled(compute, call.x)


_NEAR = 1e-5  # below it the plain mean, which is off by a twelfth of the step's square
