"""RelP's rule table: LRP coefficients of norms, activations and gated products; everything else keeps its gradient.

Norms: the denominator is a constant, the mean stays. Activations: y/x (identity rule). A product of two activations:
half for each factor. Attention keeps its ordinary gradient, or counts its weights as constants.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attrib.errors import UnknownName
from attrib.rules import attention as attend
from attrib.rules import elementwise as e
from attrib.rules.call import Call
from attrib.rules.ruled import ruled
from attrib.rules.table import Rule, Rules

# what stands between the two matrices of an MLP; a bare tanh caps logits and a sigmoid gates: ordinary gradients
_ACTIVATIONS = ("activation", "gelu", "silu", "hardswish", "mish", "elu")
_STABILISER = 1e-6


def published_identity(call: Call) -> Any:
    """c_x = c_y · y/s(x) with s(x) = x ± 1e-6, as the authors' code has it: 0, not the slope, where x is exactly 0."""
    function, settings = e.out_of_place(call)

    def compute(x: Tensor) -> Any:
        y = function(x, **settings)
        ratio = y / (x + torch.where(x >= 0, _STABILISER, -_STABILISER))
        return x.copy_(y) if call.in_place else y, (ratio,), lambda c, ratio: (c * ratio).to(c.dtype)

    return ruled(compute, call.x)


def inverse_power(call: Call) -> Any:
    """x^n with n < 0 is the scale of a norm and counts as a constant; other powers keep their gradient."""
    exponent = call.argument(1, "exponent", 2)
    return call.plain().detach() if isinstance(exponent, (int, float)) and exponent < 0 else call.plain()


def _table(activation: Rule) -> Rules:
    table: dict[str, Rule] = {
        "layer_norm": e.layer_norm,
        "group_norm": e.group_norm,
        "rms_norm": e.rms_norm,
        "power": inverse_power,
        "product": e.product,
    }
    table |= dict.fromkeys(("root", "reciprocal", "length", "variance"), attend.constant)
    table |= dict.fromkeys(_ACTIVATIONS, activation)
    table |= dict.fromkeys(("relu", "leaky_relu", "hardtanh", "tanh", "sigmoid", "softplus"), e.as_gradient)
    return Rules(table, harmless=frozenset({e.as_gradient}))


MODES = {
    "relp": _table(e.identity),
    "published": _table(published_identity),
    "published_late": _table(e.as_gradient),
}
ATTENTION = {
    "gradient": Rules(),
    "constant": Rules(
        {
            "attention": attend.FusedAttention(0.0, 1.0),
            "softmax": attend.constant,
            "multi_head_attention": attend.multi_head,
        }
    ),
}


def relp_rules(mode: str, attention: str) -> Rules:
    """The table of `mode`, a key of MODES, with attention as `attention`, a key of ATTENTION, says."""
    for what, given, known in (("RelP mode", mode, MODES), ("attention rule", attention, ATTENTION)):
        if given not in known:
            raise UnknownName(what, given, known)
    return MODES[mode] | ATTENTION[attention]
