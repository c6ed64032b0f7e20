"""LRP rules for the first layer: they put relevance on the input itself, not in proportion to x.

In gradient form that has no coefficient where x = 0, so it is deposited: a unit tensor joins the call as a
second input, and its gradient is the relevance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attrib.rules.affine import Affine
from attrib.rules.engine import Engine
from attrib.rules.layer import Bias, Computed, LinearRule, bias_within, book, book_added, wide_of
from attrib.rules.ruled import ruled
from attrib.rules.stabiliser import Stabiliser


@dataclass(frozen=True)
class DepositRule(LinearRule):
    """Base of the first-layer rules; `pull` of their `compute` gives relevance, not a coefficient."""

    def joined(self, engine: Engine, x: Tensor, compute: Callable[[Tensor], Computed]) -> Tensor:
        if x.shape == engine.inputs:
            unit = x.new_ones(()).expand(x.shape).detach().requires_grad_()
            engine.deposits.append(unit)
            return ruled(lambda x, unit: _to_unit(compute(x)), x, unit)
        return ruled(lambda x: _as_coefficient(engine, x, compute(x)), x)


def _to_unit(computed: Computed) -> Computed:
    value, saved, pull = computed
    return value, saved, lambda c, *saved: (None, pull(c, *saved))


def _as_coefficient(engine: Engine, x: Tensor, computed: Computed) -> Computed:
    """R/x; what falls on x = 0 has no coefficient and is booked."""
    value, saved, pull = computed

    def divided(c: Tensor, x: Tensor, *saved: Tensor) -> Tensor:
        relevance = pull(c, *saved)
        engine.ledger.absorb("zeros before the first layer", (relevance * (x == 0)).flatten(1).sum(1))
        return torch.where(x == 0, torch.zeros_like(x), relevance / x)

    return value, (x, *saved), divided


@dataclass(frozen=True, eq=False)
class ZBox(DepositRule):
    """R_x = x⊙WᵀS − l⊙W⁺ᵀS − h⊙W⁻ᵀS, S = R/s(Wx − W⁺l − W⁻h) — Montavon et al. 2017, eq. 19.

    low, high: the bounds l ≤ x ≤ h, broadcastable to the model's input; (batch, 1, …) for a pair of them per sample.
    The bias cancels.
    """

    low: Tensor
    high: Tensor
    epsilon: float | Stabiliser = 1e-6

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        low = _bound(self.low.to(x), x, engine.inputs, lambda low: low.amin(1))
        high = _bound(self.high.to(x), x, engine.inputs, lambda high: high.amax(1))
        up, whole = layer.positive(), layer.total_weight()
        d = layer.apply(x, whole) - layer.apply(low - high, up) - layer.apply(high, whole)  # W⁻ = W − W⁺
        d = wide_of(d)
        sign = torch.ones_like(d).copysign_(d + 0.0)
        added = Stabiliser.of(self.epsilon).added(d.abs())
        ratio = wide_of(z) / (d + added * sign)
        within = bool(d.amin() >= 0)  # as it is where l ≤ x ≤ h

        def pull(c: Tensor, ratio: Tensor, x: Tensor, *sign: Tensor) -> Tensor:
            s = c * ratio
            book_added(engine, layer, s * sign[0] if sign else s, added)
            s = s.to(c.dtype)
            pulled, positive = layer.transpose(s, whole, x.shape), layer.transpose(s, up, x.shape)
            return (x - high) * pulled - (low - high) * positive

        return z, (ratio, x, *([] if within else [sign])), pull


def _bound(bound: Tensor, x: Tensor, inputs: torch.Size, widest: Callable[[Tensor], Tensor]) -> Tensor:
    """The bound shaped like x, with a single row where it is the same for all samples.

    Where x is not laid out as the bounds are (a picture's patches as rows), the widest of all channels and places.
    """
    if bound.dim() == x.dim() and bound.shape[1:] == x.shape[1:] and len(bound) in (1, len(x)):
        return bound
    bound = bound.reshape(*[1] * (len(inputs) - bound.dim()), *bound.shape)
    fits = x.dim() == len(inputs) and len(bound) in (1, len(x))
    if not (fits and all(b in (1, n) for b, n in zip(bound.shape[1:], x.shape[1:], strict=True))):
        bound = widest(bound.flatten(1)).view(-1, *[1] * (x.dim() - 1))
        bound = bound if len(bound) == 1 else bound.repeat_interleave(len(x) // len(bound), 0)
    return bound.expand(len(bound), *x.shape[1:])


@dataclass(frozen=True)
class WSquare(DepositRule):
    """R_x = (W²)ᵀ(R/s(Σ W² + b²)) — Montavon et al. 2017, eq. 12. b² takes its share, unless excluded."""

    epsilon: float | Stabiliser = 1e-6
    bias: Bias = "absorbs"

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        squares, bias = layer.total_weight().square(), bias_within(layer, self.bias)
        own = None if bias is None else bias.square()
        d = wide_of(layer.apply(x.new_ones(()).expand(1, *x.shape[1:]).contiguous(), squares, own))
        added = Stabiliser.of(self.epsilon).added(d)
        ratio = wide_of(z) / (d + added)
        shape = x.shape

        def pull(c: Tensor, ratio: Tensor) -> Tensor:
            s = c * ratio
            book_added(engine, layer, s, added)
            book(engine, layer, s, own)
            return layer.transpose(s.to(c.dtype), squares, shape)

        return z, (ratio,), pull


@dataclass(frozen=True)
class Flat(DepositRule):
    """R_x = 1ᵀ(R/s(Σ 1)): every input in the receptive field gets the same — Lapuschkin et al. 2019."""

    epsilon: float | Stabiliser = 1e-6

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        ones = layer.weight.new_ones(()).expand(layer.weight.shape)
        count = wide_of(layer.apply(x.new_ones(()).expand(1, *x.shape[1:]), ones))
        added = Stabiliser.of(self.epsilon).added(count)
        ratio = wide_of(z) / (count + added)
        shape = x.shape

        def pull(c: Tensor, ratio: Tensor) -> Tensor:
            s = c * ratio
            book_added(engine, layer, s, added)
            return layer.transpose(s.to(c.dtype), ones, shape)

        return z, (ratio,), pull
