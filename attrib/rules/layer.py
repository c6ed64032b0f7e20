"""What every rule for linear layers needs: the call taken apart, BatchNorm behind it folded in, biases booked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.rules.affine import Affine
from attrib.rules.call import Call
from attrib.rules.elementwise import affine_norm, batch_norm_affine
from attrib.rules.engine import Engine
from attrib.rules.ruled import Pull, ruled

Computed = tuple[Tensor, Sequence[Tensor], Pull]
Bias = Literal["absorbs", "excluded"]


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
        layer = Affine.of(call, call.engine.weights)
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
    """The convolution with its ordinary gradient, for frozen weights: quicker, and it keeps no activation."""
    layer, x = Affine.of(call, call.engine.weights), call.argument(0, "input")
    if layer is None:
        return call.plain()
    weight, shape = layer.laid_out(x), x.shape
    return ruled(lambda x: (layer.apply(x, weight, layer.bias), (), lambda c: layer.transpose(c, weight, shape)), x)


def fold_batch_norm(call: Call) -> Any:
    """BatchNorm behind a linear layer joins that layer's rule; elsewhere it is an affine map."""
    z = call.argument(0, "input")
    origin: Origin | None = getattr(z, "_attrib_origin", None)
    affine = batch_norm_affine(call)
    if affine is None:
        return NotImplemented
    if origin is None or origin.version != z._version:
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


def bias_within(layer: Affine, bias: Bias) -> Tensor | None:
    """(out,) the bias that is part of a rule's denominators: all of it, or none where it is "excluded"."""
    if bias not in get_args(Bias):
        raise InputError(f"bias must be one of {', '.join(get_args(Bias))}, got {bias!r}")
    return layer.total_bias() if bias == "absorbs" else None


def book_added(engine: Engine, layer: Affine, s: Tensor, added: float | Tensor) -> None:
    """Σ S·(s(d) − d), per sample: what the stabiliser takes; s: S in the sign of d, added: |s(d)| − |d|."""
    taken = layer.per_channel(s * added) if isinstance(added, Tensor) else added * layer.per_channel(s)
    engine.ledger.absorb("stabiliser", taken)
