"""Guided backpropagation and the deconvolution network: a backward pass with another rule for ReLU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar

import torch
import torch.nn.functional as F

from attrib.coverage import Coverage
from attrib.methods.base import Card, Finding, Method, Question
from attrib.rules.choices import SORTING
from attrib.rules.presets import DECONV, GUIDED
from attrib.rules.table import Rules
from attrib.rules.vocabulary import IS_LINEAR, RULED, name_of

_MISLEADS = (
    "It recovers edges of the input whatever class is asked for, also on a network with random weights "
    "(Nie et al. 2018; Adebayo et al. 2018): sharp, and no evidence of what decided."
)
_AFFINE = ("conv", "conv_transpose", "linear", "batch_norm", "sum_of_two", "difference", "concatenation")
_FUNCTIONS = (*IS_LINEAR, *chain.from_iterable(RULED[kind] for kind in _AFFINE), F.pad, torch.stack)
_CHOOSING = (*SORTING, torch.quantile, torch.aminmax, torch.masked_select)
# what has the same derivative at every input, as coverage names it
_STRAIGHT = frozenset(map(name_of, _FUNCTIONS)) - frozenset(map(name_of, _CHOOSING))


@dataclass(frozen=True)
class GuidedBackprop(Method):
    """Gradient in which every ReLU passes positive gradients at active units only. Springenberg et al. 2014."""

    name: ClassVar[str] = "guided_backprop"
    card: ClassVar[Card] = Card(
        title="Guided backpropagation",
        idea="Follow only paths that are active and push the score up.",
        formula="at each ReLU: u ↦ u⁺ ⊙ 1[z>0]; the result is the gradient at the input",
        reference="Springenberg et al. 2014, arXiv:1412.6806",
        assumptions="The nonlinearities are ReLUs; GELU, SiLU and others keep their gradient and are reported.",
        misleads=_MISLEADS,
        cost="1 F + 1 B",
    )

    def explain(self, question: Question) -> Finding:
        return _explained(question, GUIDED)


@dataclass(frozen=True)
class DeconvNet(Method):
    """Gradient in which every ReLU passes positive gradients, active or not. Zeiler & Fergus 2014."""

    name: ClassVar[str] = "deconvnet"
    card: ClassVar[Card] = Card(
        title="DeconvNet",
        idea="Project the score back through the network, rectifying on the way down.",
        formula="at each ReLU: u ↦ u⁺; the result is the gradient at the input",
        reference="Zeiler, Fergus 2014, arXiv:1311.2901",
        assumptions="The nonlinearities are ReLUs; others keep their gradient and are reported.",
        misleads=f"{_MISLEADS} Only max-pooling tells it of the input, since it does not ask which ReLUs were active: "
        "without any, as in EfficientNets, all pictures get the same map, a checkerboard of the strides.",
        cost="1 F + 1 B",
    )

    def explain(self, question: Question) -> Finding:
        found = _explained(question, DECONV)
        return replace(found, notes=(*found.notes, *_same_for_all(found.coverage)))


def _explained(question: Question, rules: Rules) -> Finding:
    score, gradient, coverage = question.gradient_under(rules)
    return Finding(gradient, score, coverage=coverage, notes=without_relu(coverage))


def _same_for_all(coverage: Coverage | None) -> tuple[str, ...]:
    if coverage is None or not coverage.ruled or coverage.uncovered or not coverage.linear.keys() <= _STRAIGHT:
        return ()
    return ("the network has no max-pooling: this map is the same for every input",)


def without_relu(coverage: Coverage) -> tuple[str, ...]:
    """The note on a network in which the rule met nothing to change."""
    return () if coverage.ruled else ("the network has no ReLU on this path: the map is the plain gradient",)
