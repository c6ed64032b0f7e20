"""LRP rules for linear layers, in gradient form: from c = R_y/y to c = R_x/x.

Notation of the docstrings: z = W·x + b; a⁺ = max(a, 0), a⁻ = min(a, 0); s(z) = z + ε·sgn(z), sgn(0) = +1;
S = R/s(·). BatchNorm behind the layer is folded into W and b. What the bias and ε absorb goes to the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from attrib.rules.affine import Affine, is_packed, packed
from attrib.rules.elementwise import affine_norm, batch_norm_affine
from attrib.rules.engine import Call, Engine, Pull, ruled

Computed = tuple[Tensor, Sequence[Tensor], Pull]


class Origin(NamedTuple):
    """Where a tensor came from: the layer, its input and rule; a BatchNorm behind it is folded into them."""

    layer: Affine
    x: Tensor
    rule: LinearRule
    version: int


@dataclass(frozen=True)
class LinearRule:
    """Base of the rules: subclasses say how (x, z) and c give c_x."""

    def __call__(self, call: Call) -> Any:
        layer = Affine.of(call, call.engine.cache)
        if layer is None:
            return NotImplemented
        norm_follows = layer.weight.data_ptr() in call.engine.cache.followed_by_norm
        compute = self.deferred if norm_follows else self.compute
        x = call.argument(0, "input")
        z = self.joined(call.engine, x, lambda x: compute(call.engine, layer, x, layer.plain(x)))
        z._attrib_origin = Origin(layer, x, self, z._version)  # type: ignore[attr-defined]
        return z

    def joined(self, engine: Engine, x: Tensor, compute: Callable[[Tensor], Computed]) -> Tensor:
        """The layer's output, with the rule as its backward."""
        return ruled(compute, x)

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        """(z, what to save, pull(c, *saved) -> c_x)."""
        raise NotImplementedError

    def deferred(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        """z alone: a BatchNorm will fold this call into its own. Should none come, the backward computes the rule."""

        def pull(c: Tensor, x: Tensor) -> Any:
            _, saved, pull = self.compute(engine, layer, x, layer.plain(x))
            return pull(c, *saved)

        return z, (x,), pull


def in_layout(call: Call) -> Any:
    """The convolution as it is, its weights in the memory layout of x: only quicker."""
    weight = call.argument(1, "weight")
    if weight.requires_grad or not is_packed(call.argument(0, "input")):
        return call.plain()
    weight = call.engine.cache.derived("packed", (weight,), packed)
    rest = {name: value for name, value in call.kwargs.items() if name not in ("input", "weight")}
    return call.function(call.argument(0, "input"), weight, *call.args[2:], **rest)


def fold_batch_norm(call: Call) -> Any:
    """BatchNorm behind a linear layer joins that layer's rule; elsewhere it is an affine map."""
    z = call.argument(0, "input")
    origin: Origin | None = getattr(z, "_attrib_origin", None)
    affine = batch_norm_affine(call)
    if affine is None:
        return NotImplemented
    if origin is None or origin.version != z._version :
        return affine_norm(call)
    engine = call.engine
    engine.cache.followed_by_norm.add(origin.layer.weight.data_ptr())
    fold = tuple(a for a in call.args[1:5] if isinstance(a, Tensor))
    layer = origin.layer.folded(*affine, fold)
    y = call.function(z.detach(), *call.args[1:], **call.kwargs)
    return origin.rule.joined(engine, origin.x, lambda x: origin.rule.compute(engine, layer, x, y))


def wide_of(z: Tensor) -> Tensor:
    """In float32 at least: a division in half precision loses its stabiliser."""
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


def book(engine: Engine, layer: Affine, s: Tensor, bias: Tensor | None) -> None:
    """Σ S·b, per sample: what a bias takes of the relevance S·(W·x + b)."""
    if bias is not None:
        engine.ledger.absorb("bias", layer.per_channel(s) @ bias.to(s.dtype))


@dataclass(frozen=True)
class Epsilon(LinearRule):
    """R_x = x ⊙ Wᵀ(R/s(z)) — Bach et al. 2015, eq. 58. epsilon: in units of z; 0 is LRP-0, the gradient."""

    epsilon: float = 1e-6

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        shape, bias = x.shape, layer.total_bias()
        if self.epsilon == 0:

            in_channels_last = is_packed(x)

            def plain(c: Tensor) -> Tensor:
                c = packed(c) if in_channels_last else c
                book(engine, layer, c, bias)
                return layer.pull(c, shape)

            return z, (), plain
        wide = wide_of(z)
        signed = wide / (wide.abs() + self.epsilon)  # |signed| = z/s(z), its sign that of z

        def pull(c: Tensor, signed: Tensor) -> Tensor:
            s = c * signed.abs()
            engine.ledger.absorb("stabiliser", self.epsilon * layer.per_channel(c * signed))
            book(engine, layer, s, bias)
            return layer.pull(s.to(c.dtype), shape)

        return z, (signed,), pull


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
    epsilon: float = 1e-6

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        favoured = layer.derived(f"gamma {self.gamma}", lambda w: w + self.gamma * w.clamp_min(0))
        bias, k = layer.total_bias(), 2 + self.gamma
        signed_input = bool(x.amin() < 0)
        d = _favoured_sum(layer, favoured, x, signed_input, k)
        up = None if bias is None else bias + self.gamma * bias.clamp_min(0)
        down = None if bias is None else bias + self.gamma * bias.clamp_max(0)
        d = wide_of(d if up is None else d + layer.channels(up))
        wide = wide_of(z)
        # |d⁺| where z > 0 and |d⁻| = d⁺ − kz where z < 0, without a mask: masks are slow on a CPU
        d = d.sub(wide.clamp_max(0), alpha=k).abs_().add_(self.epsilon)
        ratio = wide / d  # positive: weight of P; negative: minus that of N
        shape = x.shape

        def pull(c: Tensor, ratio: Tensor, *sign: Tensor) -> Tensor:
            p_minus_n = c * ratio
            n = (c * ratio.clamp_max(0)).neg_()
            one_sided = bool(n.amax() <= 0)
            engine.ledger.absorb("stabiliser", self.epsilon * layer.per_channel(p_minus_n))
            book(engine, layer, p_minus_n if one_sided else p_minus_n + n, up)
            if not one_sided:
                book(engine, layer, n, down)
            down_pull = layer.transpose(p_minus_n.to(c.dtype), favoured, shape)
            if one_sided and not sign:
                return down_pull
            return self._both_signs(layer, shape, p_minus_n, n, down_pull, *sign)

        return z, (ratio, *([x > 0] if signed_input else [])), pull

    def _both_signs(
        self, layer: Affine, shape: torch.Size, p_minus_n: Tensor, n: Tensor, pulled: Tensor, *positive: Tensor
    ) -> Tensor:
        k = 2 + self.gamma
        for_positive = pulled + k * layer.pull(n.to(pulled.dtype), shape)
        if not positive:
            return for_positive
        for_negative = k * layer.pull((p_minus_n + n).to(pulled.dtype), shape) - pulled
        return _by_sign(positive[0], for_positive, for_negative)


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
    """R_x = x⁺ ⊙ W⁺ᵀS + x⁻ ⊙ W⁻ᵀS with S = R/s(W⁺x⁺ + W⁻x⁻ + b⁺) — Montavon et al. 2017 (α1β0).

    bias: "absorbs" its share b⁺, or is "excluded" from the denominator, so that all relevance goes to x.
    """

    epsilon: float = 1e-6
    bias: Literal["absorbs", "excluded"] = "absorbs"

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        positive = layer.positive()
        bias = layer.total_bias() if self.bias == "absorbs" else None
        up = None if bias is None else bias.clamp_min(0)
        signed_input = bool(x.amin() < 0)
        d = _favoured_sum(layer, positive, x, signed_input, 1.0)
        d = wide_of(d if up is None else d.add_(layer.channels(up)))
        ratio = wide_of(z) / (d + self.epsilon)  # d ≥ 0
        shape = x.shape

        def pull(c: Tensor, ratio: Tensor, *sign: Tensor) -> Tensor:
            s = c * ratio
            per_channel = layer.per_channel(s)
            engine.ledger.absorb("stabiliser", self.epsilon * per_channel)
            if up is not None:
                engine.ledger.absorb("bias", per_channel @ up.to(s.dtype))
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
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise ValueError(f"alpha - beta must be 1 and both at least 0; got alpha={self.alpha}, beta={self.beta}")

    def compute(self, engine: Engine, layer: Affine, x: Tensor, z: Tensor) -> Computed:
        up, down = layer.positive(), layer.negative()
        bias = layer.total_bias()
        above, below = x.clamp_min(0), x.clamp_max(0)
        d1 = layer.apply(above, up, None if bias is None else bias.clamp_min(0)) + layer.apply(below, down)
        d2 = layer.apply(above, down, None if bias is None else bias.clamp_max(0)) + layer.apply(below, up)
        wide = wide_of(z)
        ratio1, ratio2 = wide / (wide_of(d1) + self.epsilon), wide / (wide_of(d2) - self.epsilon)
        shape = x.shape

        def pull(c: Tensor, ratio1: Tensor, ratio2: Tensor, positive: Tensor) -> Tensor:
            s1, s2 = self.alpha * c * ratio1, -self.beta * c * ratio2
            engine.ledger.absorb("stabiliser", self.epsilon * (layer.per_channel(s1) - layer.per_channel(s2)))
            if bias is not None:
                book(engine, layer, s1, bias.clamp_min(0))
                book(engine, layer, s2, bias.clamp_max(0))
            s1, s2 = s1.to(c.dtype), s2.to(c.dtype)
            for_positive = layer.transpose(s1, up, shape) + layer.transpose(s2, down, shape)
            for_negative = layer.transpose(s1, down, shape) + layer.transpose(s2, up, shape)
            return _by_sign(positive, for_positive, for_negative)

        return z, (ratio1, ratio2, x > 0), pull
