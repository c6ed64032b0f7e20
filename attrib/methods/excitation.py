"""Excitation pullbacks: the gradient with soft gates, and the ascent that it drives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.methods.backprop import without_relu
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.rules.presets import excitation


@dataclass(frozen=True)
class ExcitationPullback(Method):
    """Gradient with ReLU gates σ(z/τ) and softly pooled maxima; with steps, the picture it pushes towards.

    steps = 0: values are the pullback itself. steps > 0: values are x_n − x_0 in units in which black is −1
    and white is 1 (of the preprocessed input, where the model has no preprocessing).
    """

    name: ClassVar[str] = "excitation_pullback"
    card: ClassVar[Card] = Card(
        title="Excitation pullback",
        idea="Let units that were nearly active take part, and see what the network would rather have seen.",
        formula="at each ReLU: u ↦ u ⊙ σ(z/τ); max-pool: the Jacobian of softmax pooling at temperature τ; "
        "ascent: x ← Π(x + α g/‖g‖), ‖x − x₀‖ ≤ radius, inside [−1, 1]",
        reference="Satkiewicz 2025, 'Excitation pullbacks' (forward pass unchanged, gates of the backward softened)",
        assumptions="The nonlinearities are ReLU or ReLU6; others keep their gradient and are reported.",
        misleads="The ascent shows what would raise the score, not what raised it; a large radius can paint the "
        "class into any picture.",
        cost="1 F + 1 B for the pullback, and once more for every step",
    )

    temperature: float = setting(0.3, "Softness τ of the gates, in units of the pre-activation", low=0.01, high=10.0)
    steps: int = setting(0, "Ascent steps; 0 shows the pullback itself", low=0, high=100)
    step_size: float = setting(20.0, "Length of an ascent step (black −1, white 1)", low=0.1, high=200.0)
    radius: float = setting(100.0, "How far the picture may move in all", low=1.0, high=1000.0)

    def explain(self, question: Question) -> Finding:
        if self.temperature <= 0 or self.steps < 0:
            raise InputError(f"temperature must be above 0 and steps at least 0, got {self.temperature}, {self.steps}")
        if self.steps > 0 and (self.step_size <= 0 or self.radius <= 0):
            raise InputError(f"step_size and radius must be above 0, got {self.step_size}, {self.radius}")
        score, gradient, coverage = question.gradient_under(excitation(self.temperature))
        if self.steps == 0:
            return Finding(gradient, score, coverage=coverage, notes=without_relu(coverage))
        ascended, difference = self._ascend(question, gradient)
        with torch.no_grad():
            after = question.scores(ascended)
        changes = ", ".join(f"{a:.3g} → {b:.3g}" for a, b in zip(score.tolist()[:3], after.tolist()[:3], strict=True))
        return Finding(
            difference,
            score,
            coverage=coverage,
            parts={"score_after": after},
            notes=(f"the map is the difference that {self.steps} ascent steps make; they moved the score {changes}",),
        )

    def _ascend(self, question: Question, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """(the ascended input, its difference in [−1, 1] units); `gradient` is that of the first step."""
        bounds = question.model.bounds()
        one = question.x.new_ones(())
        low, high = (-one, one) if bounds is None else (bounds[0].to(question.x), bounds[1].to(question.x))
        middle, half = (high + low) / 2, (high - low) / 2
        start = (question.x - middle) / half
        x = question.x
        for step in range(self.steps):
            if step > 0:
                _, gradient, _ = replace(question, x=x).gradient_under(excitation(self.temperature))
            moved = (x - middle) / half + self.step_size * _unit(gradient * half)
            moved = start + _within(moved - start, self.radius)
            if bounds is not None:
                moved = moved.clamp(-1, 1)
            x = moved * half + middle
            question.on_progress((step + 1) / self.steps)
        return x, (x - middle) / half - start


def _norm(d: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(d.flatten(1), dim=1).clamp_min(1e-20).view(-1, *[1] * (d.dim() - 1))
    return length


def _unit(d: Tensor) -> Tensor:
    return d / _norm(d)


def _within(d: Tensor, radius: float) -> Tensor:
    return d * (radius / _norm(d)).clamp_max(1.0)
