"""Rule tables by name. The names of the CNN tables are zennit's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from attrib.errors import UnknownName
from attrib.rules import attention as attend
from attrib.rules import elementwise as e
from attrib.rules.composites import contraction, opened
from attrib.rules.engine import Rule, Rules
from attrib.rules.first import Flat, ZBox
from attrib.rules.homogeneous import Homogeneous, power
from attrib.rules.linear import AlphaBeta, Epsilon, Gamma, LinearRule, ZPlus, fold_batch_norm, in_layout
from attrib.rules.pooling import ExcitationPool
from attrib.rules.rectifiers import ExcitationGate, deconv, guided, passed
from attrib.rules.recurrent import recurrence


def _rectifying(table: dict[str, Rule]) -> Rules:
    return Rules(table | {"conv": in_layout}, harmless=frozenset({in_layout}))


GUIDED = _rectifying({"relu": guided, "hardtanh": guided})
DECONV = _rectifying({"relu": deconv, "hardtanh": deconv})


def excitation(temperature: float) -> Rules:
    """The gates of excitation pullbacks, τ = temperature for ReLUs and max-pools alike."""
    gate = ExcitationGate(temperature)
    return _rectifying({"relu": gate, "hardtanh": gate, "max_pool": ExcitationPool(temperature)})


def _conserving(conv: LinearRule, linear: LinearRule, first: LinearRule | None = None) -> Rules:
    """Everything that a table which accounts for all relevance needs, around its rules for linear layers."""
    table: dict[str, Rule] = {
        "conv": conv,
        "conv_transpose": conv,
        "linear": linear,
        "batch_norm": fold_batch_norm,
        "layer_norm": e.layer_norm,
        "group_norm": e.group_norm,
        "hardtanh": passed,
        "sigmoid": e.gate,
        "product": e.product,
        "quotient": e.quotient,
        "sum_of_two": e.SumWithConstant(),
        "difference": e.SumWithConstant(-1.0),
        "concatenation": e.concatenation,
        "matrix_product": attend.matrix_product,
        "sum_and_product": attend.sum_and_product,
        "attention": attend.FusedAttention(0.25, 0.5),
        "multi_head_attention": attend.multi_head,
        "softmax": attend.softmax,
        "rms_norm": e.rms_norm,
        "reciprocal": attend.constant,
        "root": Homogeneous(0.5),
        "length": Homogeneous(1.0),
        "variance": Homogeneous(2.0),
        "power": power,
        "contraction": contraction,
        "composite": opened,
        "recurrence": recurrence,
    }
    table |= dict.fromkeys(("relu", "leaky_relu", "max_pool", "maximum"), e.as_gradient)
    table |= dict.fromkeys(("activation", "gelu", "silu", "hardswish", "mish", "elu", "tanh", "softplus"), e.identity)
    if first is not None:
        table["first"] = first
    return Rules(table, conserving=True, harmless=frozenset({e.as_gradient}))


def _transformer(activation: Rule, attention: attend.FusedAttention, softmax: Rule) -> Rules:
    """The table of AttnLRP or CP-LRP: linear layers by their gradient, norms and powers of norms as constants."""
    shared = _conserving(Epsilon(0.0), Epsilon(0.0))
    table = dict.fromkeys(("activation", "gelu", "silu", "hardswish", "mish", "elu", "tanh"), activation)
    return shared | Rules(table | {"attention": attention, "softmax": softmax})


ATTN_LRP = _transformer(e.identity, attend.FusedAttention(0.25, 0.5), attend.softmax)
CP_LRP = _transformer(e.gate, attend.FusedAttention(0.0, 1.0), attend.constant)

Bounds = tuple[Tensor, Tensor]

PRESETS: dict[str, Callable[[Bounds], Rules]] = {
    "gradient": lambda bounds: _conserving(Epsilon(0.0), Epsilon(0.0)),
    "epsilon": lambda bounds: _conserving(Epsilon(), Epsilon()),
    "epsilon_plus": lambda bounds: _conserving(ZPlus(), Epsilon()),
    "epsilon_plus_flat": lambda bounds: _conserving(ZPlus(), Epsilon(), Flat()),
    "epsilon_gamma_box": lambda bounds: _conserving(Gamma(), Epsilon(), ZBox(*bounds)),
    "epsilon_alpha2_beta1": lambda bounds: _conserving(AlphaBeta(), Epsilon()),
    "epsilon_plus_flat_no_bias": lambda bounds: _conserving(ZPlus(bias="excluded"), Epsilon(), Flat()),
    "attn_lrp": lambda bounds: ATTN_LRP,
    "cp_lrp": lambda bounds: CP_LRP,
    "epsilon_alpha2_beta1_flat": lambda bounds: _conserving(AlphaBeta(), Epsilon(), Flat()),
}


def preset_named(name: str, bounds: Bounds) -> Rules:
    """The rule table called `name`; bounds: (low, high) of the input, used by z-box."""
    if name not in PRESETS:
        raise UnknownName("LRP preset", name, PRESETS)
    return PRESETS[name](bounds)
