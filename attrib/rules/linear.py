"""LRP rules for linear layers, in gradient form: from c = R_y/y to c = R_x/x.

Notation of the docstrings: z = W·x + b; a⁺ = max(a, 0), a⁻ = min(a, 0); s(d) stabilises a denominator, by default
d + ε·sgn(d) with sgn(0) = +1; S = R/s(·). BatchNorm behind the layer is folded into W and b. What the bias and the
stabiliser absorb goes to the ledger.

Fields: epsilon, the stabiliser's ε in units of z, or a Stabiliser. bias: it "absorbs" its share of the relevance,
or is "excluded" from the denominators, so that all relevance goes to x (zennit's zero_params=["bias"]).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attrib.rules.affine import Affine, packed
from attrib.rules.call import Call, carries
from attrib.rules.engine import Engine
from attrib.rules.layer import Bias, Computed, LinearRule, bias_within, book, book_added, wide_of
from attrib.rules.pointwise import is_packed
from attrib.rules.ruled import on_relevance
from attrib.rules.stabiliser import Stabiliser


@dataclass(frozen=True)
class Epsilon(LinearRule):
    """R_x = x ⊙ Wᵀ(R/s(z)) — Bach et al. 2015, eq. 58. ε = 0 with the bias absorbing is LRP-0, the gradient."""

    epsilon: float | Stabiliser = 1e-6
    bias: Bias = "absorbs"

    def __call__(self, call: Call) -> Any:
        # a matrix product needs no more than a hook that books; one of images is quicker in a layout of ours
        is_gradient = self.epsilon == 0 and self.bias == "absorbs"
        return _booked(call) if is_gradient and call.kind == "linear" else super().__call__(call)

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        bias = bias_within(layer, self.bias)
        if self.epsilon == 0 and self.bias == "absorbs":
            return _gradient(engine, layer, x, z, bias)
        shape, wide = x.shape, wide_of(z)
        own = layer.total_bias() if self.bias == "excluded" else None
        d = wide if own is None else wide - layer.channels(own)
        size = d.abs()
        added = Stabiliser.of(self.epsilon).added(size)
        ratio = wide / (size + added)  # z/s(d) but for the sign of d, which mostly is that of z
        signs = () if own is None else (torch.ones_like(d).copysign_(d + 0.0),)

        def pull(c: Tensor, ratio: Tensor, *sign: Tensor) -> Tensor:
            book_added(engine, layer, c * ratio, added)
            s = c * (ratio * sign[0] if sign else ratio.abs())
            book(engine, layer, s, bias)
            return layer.pull(s.to(c.dtype), shape)

        return z, (ratio, *signs), pull


def _booked(call: Call) -> Any:
    """The matrix product as the model wrote it; what its bias takes is booked."""
    weight, bias = call.argument(1, "weight"), call.argument(2, "bias")
    if carries(weight) or carries(bias):
        return NotImplemented
    output = call.plain()
    if bias is not None:
        ledger = call.engine.ledger
        on_relevance(output, lambda c: ledger.absorb("bias", c @ bias.to(c.dtype)))
    return output


def _gradient(engine: Engine, layer: Affine, x: Tensor, z: Tensor, bias: Tensor | None) -> Computed:
    shape, in_channels_last = x.shape, is_packed(x)

    def pull(c: Tensor) -> Tensor:
        c = packed(c) if in_channels_last else c
        book(engine, layer, c, bias)
        return layer.pull(c, shape)

    return z, (), pull


@dataclass(frozen=True)
class Gamma(LinearRule):
    """Positive contributions favoured — Montavon et al. 2019; the generalisation to signed x and z is zennit's.

    With W_γ± = W + γW±: d⁺ = W_γ⁺x⁺ + W_γ⁻x⁻ + b_γ⁺, d⁻ = W_γ⁻x⁺ + W_γ⁺x⁻ + b_γ⁻,
    P = R·1[z>0]/s(d⁺), N = R·1[z<0]/s(d⁻),
    R_x = x⁺ ⊙ (W_γ⁺ᵀP + W_γ⁻ᵀN) + x⁻ ⊙ (W_γ⁻ᵀP + W_γ⁺ᵀN).
    Since W_γ⁻ = (2+γ)W − W_γ⁺ and d⁺ + d⁻ = (2+γ)z, one more forward is enough, and where N = 0 (a ReLU
    follows) one backward.
    """

    gamma: float = 0.25
    epsilon: float | Stabiliser = 1e-6
    bias: Bias = "absorbs"

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        favoured = layer.derived(f"gamma {self.gamma}", lambda w: w + self.gamma * w.clamp_min(0))
        bias, k = bias_within(layer, self.bias), 2 + self.gamma
        signed_input = bool(x.amin() < 0)
        d = wide_of(_favoured_sum(layer, favoured, x, signed_input, k))
        signs = (x > 0,) if signed_input else ()
        if self.bias == "excluded":
            return self._without_bias(engine, layer, x, z, d, favoured, signs)
        up = None if bias is None else bias + self.gamma * bias.clamp_min(0)
        down = None if bias is None else bias + self.gamma * bias.clamp_max(0)
        d = d if up is None else d + layer.channels(up)
        wide, shape = wide_of(z), x.shape
        # |d⁺| where z > 0 and |d⁻| = d⁺ − kz where z < 0, without a mask: masks are slow on a CPU
        size = d.sub(wide.clamp_max(0), alpha=k).abs_()
        added = self._added(size, d, wide, wide)
        ratio = wide / size.add_(added)  # positive: weight of P; negative: minus that of N

        def pull(c: Tensor, ratio: Tensor, *sign: Tensor) -> Tensor:
            p_minus_n = c * ratio
            n = (c * ratio.clamp_max(0)).neg_()
            one_sided = _is_zero(n)
            book_added(engine, layer, p_minus_n, added)
            book(engine, layer, p_minus_n if one_sided else p_minus_n + n, up)
            if not one_sided:
                book(engine, layer, n, down)
            down_pull = layer.transpose(p_minus_n.to(c.dtype), favoured, shape)
            if one_sided and not sign:
                return down_pull
            return self._both_signs(layer, shape, p_minus_n, n, down_pull, *sign)

        return z, (ratio, *signs), pull

    def _added(self, size: Tensor, d: Tensor, whole: Tensor, z: Tensor) -> float | Tensor:
        """What s adds to size: |d⁺| where z > 0, |d⁻| elsewhere; whole: (d⁺ + d⁻)/(2+γ)."""
        stabiliser = Stabiliser.of(self.epsilon)
        if stabiliser.unit == "absolute":
            return stabiliser.added(size)
        above, below = (torch.as_tensor(stabiliser.added(part.abs())) for part in (d, (2 + self.gamma) * whole - d))
        return torch.where(z > 0, above, below)

    def _without_bias(
        self,
        engine: Engine,
        layer: Affine,
        x: Tensor,
        z: Tensor,
        d: Tensor,
        favoured: Tensor,
        signs: tuple[Tensor, ...],
    ) -> Computed:
        """The sign of z, with its bias, does not tell those of d⁺ and d⁻ then: they are kept apart."""
        wide, shape, own = wide_of(z), x.shape, layer.total_bias()
        whole = wide if own is None else wide - layer.channels(own)
        chosen = torch.where(wide > 0, d, (2 + self.gamma) * whole - d)
        added = self._added(chosen.abs(), d, whole, wide)
        sign = torch.ones_like(chosen).copysign_(chosen + 0.0)
        ratio = wide / (chosen + sign * added)

        def pull(c: Tensor, ratio: Tensor, below: Tensor, sign: Tensor, *positive: Tensor) -> Tensor:
            s = c * ratio
            n = s * below
            book_added(engine, layer, s * sign, added)
            p_minus_n = s - 2 * n
            pulled = layer.transpose(p_minus_n.to(c.dtype), favoured, shape)
            return self._both_signs(layer, shape, p_minus_n, n, pulled, *positive)

        return z, (ratio, wide < 0, sign, *signs), pull

    def _both_signs(
        self, layer: Affine, shape: torch.Size, p_minus_n: Tensor, n: Tensor, pulled: Tensor, *positive: Tensor
    ) -> Tensor:
        k = 2 + self.gamma
        for_positive = pulled + k * layer.pull(n.to(pulled.dtype), shape)
        if not positive:
            return for_positive
        for_negative = k * layer.pull((p_minus_n + n).to(pulled.dtype), shape) - pulled
        return _by_sign(positive[0], for_positive, for_negative)


def _is_zero(values: Tensor) -> bool:
    low, high = values.aminmax()
    return bool(low == 0) and bool(high == 0)


def _favoured_sum(layer: Affine, favoured: Tensor, x: Tensor, signed: bool, k: float) -> Tensor:
    """Vx⁺ + (kW − V)x⁻ for V = favoured, which for k = 2+γ is W_γ⁺x⁺ + W_γ⁻x⁻."""
    if not signed:
        return layer.apply(x, favoured)
    return layer.apply(x.abs(), favoured) + k * layer.apply(x.clamp_max(0), layer.total_weight())


def _by_sign(positive: Tensor, where_positive: Tensor, elsewhere: Tensor) -> Tensor:
    """torch.where, several times faster on a CPU."""
    return elsewhere + (where_positive - elsewhere).mul_(positive)


@dataclass(frozen=True)
class ZPlus(LinearRule):
    """R_x = x⁺ ⊙ W⁺ᵀS + x⁻ ⊙ W⁻ᵀS with S = R/s(W⁺x⁺ + W⁻x⁻ + b⁺) — Montavon et al. 2017 (α1β0)."""

    epsilon: float | Stabiliser = 1e-6
    bias: Bias = "absorbs"

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        positive = layer.positive()
        bias = bias_within(layer, self.bias)
        up = None if bias is None else bias.clamp_min(0)
        signed_input = bool(x.amin() < 0)
        d = _favoured_sum(layer, positive, x, signed_input, 1.0)
        d = wide_of(d if up is None else d.add_(layer.channels(up)))
        added = Stabiliser.of(self.epsilon).added(d)  # d ≥ 0
        ratio, shape = wide_of(z) / (d + added), x.shape

        def pull(c: Tensor, ratio: Tensor, *sign: Tensor) -> Tensor:
            s = c * ratio
            book_added(engine, layer, s, added)
            book(engine, layer, s, up)
            s = s.to(c.dtype)
            for_positive = layer.transpose(s, positive, shape)
            if not sign:
                return for_positive
            return _by_sign(sign[0], for_positive, layer.pull(s, shape) - for_positive)

        return z, (ratio, *([x > 0] if signed_input else [])), pull


@dataclass(frozen=True)
class AlphaBeta(LinearRule):
    """α times the positive contributions minus β times the negative ones, α − β = 1 — Bach et al. 2015, eq. 60.

    S₁ = R/s(W⁺x⁺ + W⁻x⁻ + b⁺), S₂ = R/s(W⁻x⁺ + W⁺x⁻ + b⁻),
    R_x = α(x⁺⊙W⁺ᵀS₁ + x⁻⊙W⁻ᵀS₁) − β(x⁺⊙W⁻ᵀS₂ + x⁻⊙W⁺ᵀS₂).
    """

    alpha: float = 2.0
    beta: float = 1.0
    epsilon: float | Stabiliser = 1e-6
    bias: Bias = "absorbs"

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise ValueError(f"alpha - beta must be 1 and both at least 0; got alpha={self.alpha}, beta={self.beta}")

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        up, down = layer.positive(), layer.negative()
        bias, stabiliser = bias_within(layer, self.bias), Stabiliser.of(self.epsilon)
        above, below = x.clamp_min(0), x.clamp_max(0)
        d1 = layer.apply(above, up, None if bias is None else bias.clamp_min(0)) + layer.apply(below, down)
        d2 = layer.apply(above, down, None if bias is None else bias.clamp_max(0)) + layer.apply(below, up)
        wide, d1, d2, shape = wide_of(z), wide_of(d1), wide_of(d2), x.shape
        added1, added2 = stabiliser.added(d1), stabiliser.added(-d2)  # d1 ≥ 0 ≥ d2
        ratio1, ratio2 = wide / (d1 + added1), wide / (d2 - added2)

        def pull(c: Tensor, ratio1: Tensor, ratio2: Tensor, positive: Tensor) -> Tensor:
            s1, s2 = self.alpha * c * ratio1, -self.beta * c * ratio2
            book_added(engine, layer, s1, added1)
            book_added(engine, layer, -s2, added2)
            if bias is not None:
                book(engine, layer, s1, bias.clamp_min(0))
                book(engine, layer, s2, bias.clamp_max(0))
            s1, s2 = s1.to(c.dtype), s2.to(c.dtype)
            for_positive = layer.transpose(s1, up, shape) + layer.transpose(s2, down, shape)
            for_negative = layer.transpose(s1, down, shape) + layer.transpose(s2, up, shape)
            return _by_sign(positive, for_positive, for_negative)

        return z, (ratio1, ratio2, x > 0), pull
