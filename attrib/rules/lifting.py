"""DeepLIFT's table, and the operations that it opens into those that it has rules for."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from attrib.rules import attention, composites
from attrib.rules.bilinear import bilinear, elementwise, quotient, softmax
from attrib.rules.call import Call
from attrib.rules.elementwise import as_gradient
from attrib.rules.extremes import extreme, opened_extreme
from attrib.rules.layer import fold_batch_norm
from attrib.rules.linear import Epsilon
from attrib.rules.placement import resampled
from attrib.rules.rectifiers import opened_clamp
from attrib.rules.recurrent import recurrence
from attrib.rules.rescale import rescale, rescale_max_pool
from attrib.rules.table import Rules
from attrib.rules.trace import carries
from attrib.rules.vocabulary import ACTIVATIONS


def length(call: Call) -> Any:
    """The L2 norm as √Σx²; other norms are not covered."""
    p, axes = call.argument(1, "ord" if "vector" in call.function.__name__ else "p", 2), call.argument(2, "dim")
    if p not in (2, 2.0, None, "fro") or axes is None or call.function.__name__ == "std":
        return NotImplemented
    keep = call.argument(3, "keepdim", False)
    return call.engine.under(lambda: call.x.square().sum(axes, keepdim=keep).sqrt())


def opened_attention(call: Call) -> Any:
    """Scores, softmax and mixing, each by its own rule."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    query, key, value, mask, _, causal = (call.argument(i, name) for i, name in enumerate(names))
    scale = call.kwargs.get("scale") or 1 / math.sqrt(query.shape[-1])

    def run() -> Tensor:
        keys, values = (_repeated(t, query.shape[-3]) if call.kwargs.get("enable_gqa") else t for t in (key, value))
        scores = torch.matmul(query * scale, keys.transpose(-2, -1))
        weights = torch.softmax(_masked(scores, mask, bool(causal)), -1)
        return torch.matmul(weights, values)

    return call.engine.under(run)


def _repeated(t: Tensor, heads: int) -> Tensor:
    return t.repeat_interleave(heads // t.shape[-3], -3)


def _masked(scores: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    if mask is None:
        return scores
    return scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask


def norm(call: Call) -> Any:
    """Layer, group and RMS norms as x·(mean x² + eps)^−½ of the centred input."""
    name = call.function.__name__
    weight, bias = call.argument(2, "weight"), None if name == "rms_norm" else call.argument(3, "bias")
    eps = call.argument(3 if name == "rms_norm" else 4, "eps", 1e-5)
    eps = torch.finfo(call.x.dtype).eps if eps is None else eps
    return call.engine.under(lambda: _normed(call, name, weight, bias, eps))


def _normed(call: Call, name: str, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    x, shape = call.x, call.x.shape
    if name == "group_norm":
        groups = call.argument(1, "num_groups")
        axes: tuple[int, ...] = (-1,)
        x, per_channel = x.reshape(shape[0], groups, -1), (1, -1, *[1] * (len(shape) - 2))
        weight, bias = (None if t is None else t.view(per_channel) for t in (weight, bias))
    else:
        axes = tuple(range(-len(call.argument(1, "normalized_shape")), 0))
    x = x if name == "rms_norm" else x - x.mean(axes, keepdim=True)
    y = (x * torch.rsqrt(x.square().mean(axes, keepdim=True) + eps)).reshape(shape)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def sum_and_product(call: Call) -> Any:
    """addmm and the like: opened where both matrices depend on the input."""
    left, right = (call.argument(i, f"batch{i}", call.kwargs.get(f"mat{i}")) for i in (1, 2))
    if not (carries(call, left) and carries(call, right)):
        return call.plain()
    beta, alpha = call.kwargs.get("beta", 1), call.kwargs.get("alpha", 1)
    return call.engine.under(lambda: call.x * beta + torch.matmul(left, right) * alpha)


def clamped(call: Call) -> Any:
    """`rescale`; opened where a bound is a tensor."""
    opened = opened_clamp(call)
    return rescale(call) if opened is NotImplemented else opened


OPENING = {
    "maximum": opened_extreme, "hardtanh": opened_clamp,
    "quotient": quotient, "length": length, "attention": opened_attention, "layer_norm": norm, "group_norm": norm,
    "rms_norm": norm, "multi_head_attention": attention.multi_head, "composite": composites.opened,
    "recurrence": recurrence, "sum_and_product": sum_and_product,
}  # fmt: skip
_PAIRED = (
    dict.fromkeys(ACTIVATIONS, rescale)
    | {"max_pool": rescale_max_pool, "softmax": softmax}
    | dict.fromkeys(("product", "matrix_product", "contraction"), bilinear)
    | dict.fromkeys(("root", "reciprocal", "power"), elementwise)
)
TRACED = frozenset(_PAIRED) | frozenset(OPENING)

_LINEAR = ("conv_transpose", "sum_of_two", "difference", "concatenation", "placement")
RESCALE = Rules(
    _PAIRED
    | OPENING
    | {"maximum": extreme, "hardtanh": clamped, "resampling": resampled}
    | dict.fromkeys(("conv", "linear"), Epsilon(0.0))
    | {"batch_norm": fold_batch_norm}
    | dict.fromkeys(_LINEAR, as_gradient),
    conserving=True,
    harmless=frozenset({as_gradient}),
)
