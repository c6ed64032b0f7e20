"""Rule tables by name. The names of the CNN tables are those of zennit's composites."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from attrib.errors import InputError, UnknownName
from attrib.rules import attention as attend
from attrib.rules import elementwise as e
from attrib.rules.composites import contraction, opened
from attrib.rules.extremes import conserved
from attrib.rules.first import Flat, ZBox
from attrib.rules.homogeneous import Homogeneous, power
from attrib.rules.layer import Bias, LinearRule, fold_batch_norm, in_layout
from attrib.rules.linear import AlphaBeta, Epsilon, Gamma, ZPlus
from attrib.rules.placement import placed, resampled
from attrib.rules.pooling import ExcitationPool
from attrib.rules.rectifiers import ExcitationGate, MaximumWithZero, deconv, guided, passed
from attrib.rules.recurrent import recurrence
from attrib.rules.stabiliser import Stabiliser
from attrib.rules.table import Rule, Rules


def _rectifying(table: dict[str, Rule]) -> Rules:
    maximum = MaximumWithZero(table["relu"])
    return Rules(table | {"conv": in_layout, "maximum": maximum}, harmless=frozenset({in_layout}))


GUIDED = _rectifying({"relu": guided, "hardtanh": guided})
DECONV = _rectifying({"relu": deconv, "hardtanh": deconv})


def excitation(temperature: float) -> Rules:
    """The gates of excitation pullbacks, τ = temperature for ReLUs and max-pools alike."""
    gate = ExcitationGate(temperature)
    return _rectifying({"relu": gate, "hardtanh": gate, "max_pool": ExcitationPool(temperature)})


def beta_smooth(beta: float = 10.0) -> Rules:
    """ReLUs hand back u ⊙ σ(βz), the slope of softplus, all else its gradient — Dombrowski et al. 2019.

    The gates of excitation pullbacks at τ = 1/β. Ceilings, as ReLU6's, are smoothed too, which zennit's are not.
    """
    gate = ExcitationGate(1 / beta)
    return _rectifying({"relu": gate, "hardtanh": gate})


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
        "placement": placed,
        "resampling": resampled,
        "maximum": conserved,
    }
    table |= dict.fromkeys(("relu", "leaky_relu", "max_pool"), e.as_gradient)
    table |= dict.fromkeys(("activation", "gelu", "silu", "hardswish", "mish", "elu", "tanh", "softplus"), e.identity)
    if first is not None:
        table["first"] = first
    return Rules(table, conserving=True, harmless=frozenset({e.as_gradient, conserved}))


def _transformer(activation: Rule, attention: attend.FusedAttention, softmax: Rule) -> Rules:
    """The table of AttnLRP or CP-LRP: linear layers by their gradient, norms and powers of norms as constants."""
    shared = _conserving(Epsilon(0.0), Epsilon(0.0))
    table = dict.fromkeys(("activation", "gelu", "silu", "hardswish", "mish", "elu", "tanh"), activation)
    return shared | Rules(table | {"attention": attention, "softmax": softmax})


ATTN_LRP = _transformer(e.identity, attend.FusedAttention(0.25, 0.5), attend.softmax)
CP_LRP = _transformer(e.gate, attend.FusedAttention(0.0, 1.0), attend.constant)

# what the code of PA-LRP does on ViTs: attention weights are constants, and half of the values' relevance is dropped
HALVED_VALUES = Rules({"attention": attend.FusedAttention(0.0, 0.5), "softmax": attend.needs_fused})

Bounds = tuple[Tensor, Tensor]


class Setup(NamedTuple):
    """What the presets of rules for linear layers take; those named after the gradient and the transformers' do not.

    bounds: (low, high) of the input, for z-box. epsilon: their stabiliser. bias: whether biases take their share.
    """

    bounds: Bounds
    epsilon: float | Stabiliser = 1e-6
    bias: Bias = "absorbs"

    @property
    def both(self) -> tuple[float | Stabiliser, Bias]:
        return self.epsilon, self.bias


PRESETS: dict[str, Callable[[Setup], Rules]] = {
    "gradient": lambda s: _conserving(Epsilon(0.0), Epsilon(0.0)),
    "epsilon": lambda s: _conserving(Epsilon(*s.both), Epsilon(*s.both)),
    "epsilon_plus": lambda s: _conserving(ZPlus(*s.both), Epsilon(*s.both)),
    "epsilon_plus_flat": lambda s: _conserving(ZPlus(*s.both), Epsilon(*s.both), Flat(s.epsilon)),
    "epsilon_gamma_box": lambda s: _conserving(Gamma(0.25, *s.both), Epsilon(*s.both), ZBox(*s.bounds, s.epsilon)),
    "epsilon_alpha2_beta1": lambda s: _conserving(AlphaBeta(2.0, 1.0, *s.both), Epsilon(*s.both)),
    "epsilon_alpha2_beta1_flat": lambda s: _conserving(AlphaBeta(2.0, 1.0, *s.both), Epsilon(*s.both), Flat(s.epsilon)),
    "excitation_backprop": lambda s: _conserving(ZPlus(*s.both), ZPlus(*s.both)),
    "beta_smooth": lambda s: beta_smooth(),
    "attn_lrp": lambda s: ATTN_LRP,
    "cp_lrp": lambda s: CP_LRP,
}


def preset_named(name: str, bounds: Bounds, epsilon: float | Stabiliser = 1e-6, bias: Bias = "absorbs") -> Rules:
    """The rule table called `name`; what else it takes: see Setup."""
    if name not in PRESETS:
        raise UnknownName("LRP preset", name, PRESETS)
    if name in _OF_THE_GRADIENT and (epsilon, bias) != Setup(bounds).both:
        raise InputError(f"preset {name} divides by nothing that a stabiliser or a bias is in; leave both as they are")
    return PRESETS[name](Setup(bounds, epsilon, bias))


_OF_THE_GRADIENT = ("gradient", "beta_smooth", "attn_lrp", "cp_lrp")
