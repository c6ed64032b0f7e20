"""Saliency and input × gradient: one backward pass to the input, no rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attrib.methods.base import Card, Finding, Method, Question


@dataclass(frozen=True)
class Saliency(Method):
    """|∂f/∂x|, elementwise. Simonyan et al. 2013."""

    name: ClassVar[str] = "saliency"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    card: ClassVar[Card] = Card(
        title="Saliency",
        idea="Where would a small change of the input change the score most?",
        formula="|∂f/∂x|; of a pixel the largest channel is shown, of a token the length of its vector",
        reference="Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034",
        assumptions="The score is differentiable at the input.",
        misleads="It shows sensitivity, not contribution: what decides the class but has saturated the network has no "
        "gradient, and in ReLU networks the map is noisy.",
        cost="1 F + 1 B",
    )

    @property
    def shares_forward(self) -> bool:
        return True

    def explain(self, question: Question) -> Finding:
        score, gradient = question.gradient(question.x)
        return Finding(gradient.abs(), score, reduction="max_abs", signed=False)


@dataclass(frozen=True)
class InputXGradient(Method):
    """x ⊙ ∂f/∂x. For a piecewise-linear network without biases it sums to the score exactly."""

    name: ClassVar[str] = "input_x_gradient"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    card: ClassVar[Card] = Card(
        title="Input × gradient",
        idea="How much of the score does each pixel or token carry, if the network were linear around this input?",
        formula="x ⊙ ∂f/∂x",
        reference="Shrikumar et al. 2016, arXiv:1605.01713",
        assumptions="Zero (of a picture the mean colour, of a text an empty embedding) means 'nothing there'.",
        misleads="What is near zero (mean-coloured pixels, short embeddings) gets nothing whatever it does; the sum "
        "differs from the score by what biases and nonlinearities carry, which is shown as the completeness error.",
        cost="1 F + 1 B",
    )

    @property
    def shares_forward(self) -> bool:
        return True

    def explain(self, question: Question) -> Finding:
        score, gradient = question.gradient(question.x)
        values = question.x * gradient
        return Finding(values, score, delta=values.flatten(1).sum(1) - score)
