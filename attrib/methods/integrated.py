"""Integrated gradients: the gradient averaged along the straight line from a baseline to the input."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from attrib.errors import InputError, UnknownName
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.baselines import BASELINE_HELP, BASELINES, Baseline, baseline_of, equal_notes
from attrib.methods.discretized import along, refined, word_paths
from attrib.methods.passes import about, laid_out, pairs, per_row

QUADRATURES = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "trapezoid", "captum_trapezoid")
PATHS = ("straight", "discretized")
# with a tolerance: where the doubling begins, and by which multiple of n_steps it ends
_FIRST_STEPS = 8
_MOST_TIMES = 32
_MOST_STEPS = 2**15


@dataclass(frozen=True, eq=False)
class IntegratedGradients(Method):
    """(x − x′) ⊙ Σ_k w_k ∂f/∂x(x′ + α_k (x − x′)). Sundararajan et al. 2017, eq. 1 and 3."""

    n_steps: int = setting(50, "Points on the line; each costs a forward and a backward.", low=1, high=1000)
    baseline: Baseline = setting("zero", BASELINE_HELP, choices=BASELINES)
    quadrature: str = setting(
        "gausslegendre",
        "Where the points lie and how they are weighted. captum_trapezoid: weights that sum to (n − 1)/n, as captum's.",
        choices=QUADRATURES,
        advanced=True,
    )
    tolerance: float | None = setting(
        None,
        "Take 8 steps and double them until the completeness error is below this share of the difference; stop "
        "at 32 × n_steps.",
        low=0.0,
        advanced=True,
    )
    path: str = setting(
        "straight",
        "discretized: not straight to the baseline, but over n_steps real words near each token (Sanyal, Ren 2021), "
        "summed by the trapezoid rule, or as the authors do with quadrature riemann_left.",
        choices=PATHS,
        advanced=True,
        for_kinds=("text",),
    )

    name: ClassVar[str] = "integrated_gradients"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    single_pass: ClassVar[bool] = False
    memory_factor: ClassVar[float] = 1.1
    card: ClassVar[Card] = Card(
        title="Integrated gradients",
        idea="What does each pixel or token add to the score on the way from a blank input to this one?",
        formula="(x − x′) ⊙ ∫₀¹ ∂f/∂x(x′ + α(x − x′)) dα",
        reference="Sundararajan, Taly, Yan 2017, arXiv:1703.01365",
        assumptions="The baseline x′ means 'nothing there', and what lies halfway means something to the network.",
        misleads="What looks like the baseline gets nothing, whatever it does: black objects on a black "
        "baseline. On ReLU networks 50 steps may leave percents of the difference unexplained: see the "
        "completeness error, and set a tolerance. Of a text the way from zero, pad or unk is steep on language models, "
        "and 50 steps may miss more than the score: random tokens (noise) fared best.",
        cost="n_steps × (1 F + 1 B) + 2 F",
    )

    def explain(self, question: Question) -> Finding:
        self._check(question)  # before the first pass
        question = laid_out(question, self.n_steps)
        baseline = baseline_of(self.baseline, question)
        score = question.settle()
        with torch.no_grad():
            difference = score - dataclasses.replace(question, x=baseline).settle()
        if self.path == "discretized":
            values, notes = self._over_words(question, baseline, difference)
        else:
            values, notes = self._until_tolerated(question, baseline, difference)
        delta = values.flatten(1).sum(1) - difference
        return Finding(values, score, delta=delta, notes=(*equal_notes(question.x, baseline), *notes))

    def _check(self, question: Question) -> None:
        nodes_and_weights(self.quadrature, self.n_steps)
        if self.tolerance is not None and self.tolerance < 0:
            raise InputError(f"tolerance = {self.tolerance:g}: no error is below 0; 0.05 is usual")
        if self.path not in PATHS:
            raise UnknownName("path", self.path, PATHS)
        if self.path == "discretized" and not question.is_text:
            raise InputError("path='discretized' goes over the words of a vocabulary, which pictures have none of")

    def _over_words(self, question: Question, baseline: Tensor, difference: Tensor) -> tuple[Tensor, tuple[str, ...]]:
        """Values along the path over words; with a tolerance, steps are halved until it is met."""
        model: Any = question.model
        vocabulary = model.embeddings.weight.detach().to(question.x)
        path = word_paths(vocabulary, question.x, baseline, self.n_steps)
        left = self.quadrature == "riemann_left"
        while True:
            values = along(question, path, left)
            error = (values.flatten(1).sum(1) - difference).abs()
            if self.tolerance is None:
                return values, ()
            met = bool((error <= self.tolerance * difference.abs()).all())
            if met or 2 * len(path) > _MOST_TIMES * self.n_steps:
                return values, (_told(self.tolerance, len(path), met),)
            path = refined(path)

    def _until_tolerated(
        self, question: Question, baseline: Tensor, difference: Tensor
    ) -> tuple[Tensor, tuple[str, ...]]:
        """Values of every sample with as few doublings of the steps as its tolerance needs."""
        values = torch.zeros_like(question.x)
        left = torch.arange(len(question.x), device=question.x.device)
        steps = self.n_steps if self.tolerance is None else min(self.n_steps, _FIRST_STEPS)
        while True:
            part = about(question, question.x[left], left)
            values[left] = path_integral(part, baseline[left], *nodes_and_weights(self.quadrature, steps))
            if self.tolerance is None:
                return values, ()
            error = (values[left].flatten(1).sum(1) - difference[left]).abs()
            left = left[error > self.tolerance * difference[left].abs()]
            if not len(left):
                return values, (_told(self.tolerance, steps, True),)
            if 2 * steps > min(_MOST_TIMES * self.n_steps, _MOST_STEPS):
                return values, (_told(self.tolerance, steps, False),)
            steps *= 2


def _told(tolerance: float, steps: int, met: bool) -> str:
    if met:
        return f"{steps} steps meet the tolerance of {tolerance:g}"
    return f"the tolerance of {tolerance:g} is not met with {steps} steps; see the completeness error"


def path_integral(question: Question, baseline: Tensor, nodes: Tensor, weights: Tensor) -> Tensor:
    """(x − x′) ⊙ Σ_k w_k ∂f/∂x(x′ + α_k (x − x′)), in memory that does not depend on the number of nodes."""
    x, total = question.x, torch.zeros_like(question.x)
    nodes, weights = nodes.to(x.dtype).to(x.device), weights.to(x.dtype).to(x.device)
    difference = x - baseline
    for step, rows in pairs(question, len(nodes)):
        point = baseline[rows] + per_row(nodes[step], x) * difference[rows]
        _, gradient = question.gradient(point, rows)
        total.index_add_(0, rows, gradient * per_row(weights[step], x))
    return difference * total


@cache
def nodes_and_weights(quadrature: str, n: int) -> tuple[Tensor, Tensor]:
    """Nodes in [0, 1] and their weights, (n,) float64 each. All weights sum to 1 but captum_trapezoid's."""
    if quadrature not in QUADRATURES:
        raise UnknownName("quadrature", quadrature, QUADRATURES)
    least = 2 if "trapezoid" in quadrature else 1
    if n < least:
        raise InputError(f"n_steps = {n}: {quadrature} needs at least {least}")
    if n > _MOST_STEPS:
        raise InputError(f"n_steps = {n}: {_MOST_STEPS} are the most; a tolerance takes as many as it needs")
    weights = np.full(n, 1 / n)
    if quadrature == "gausslegendre":
        nodes, weights = _gauss_legendre(n)
    elif "trapezoid" in quadrature:
        nodes = np.linspace(0, 1, n)
        weights = weights if quadrature == "captum_trapezoid" else np.full(n, 1 / (n - 1))
        weights[[0, -1]] /= 2
    else:
        first = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[quadrature]
        nodes = (np.arange(n) + first) / n
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def _gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]: the zeros of the Legendre polynomial P_n by Newton's iteration.

    In memory that grows with n, where numpy's leggauss takes n² numbers: 8 GB at 32 000.
    """
    roots = -np.cos(np.pi * (np.arange(n) + 0.75) / (n + 0.5))
    for _ in range(4):
        below, value = np.ones(n), roots
        for degree in range(2, n + 1):
            below, value = value, ((2 * degree - 1) * roots * value - (degree - 1) * below) / degree
        slope = n * (below - roots * value) / (1 - roots**2)
        roots = roots - value / slope
    return (1 + roots) / 2, 1 / ((1 - roots**2) * slope**2)
