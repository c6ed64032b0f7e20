"""GradientSHAP: expected gradients between the input and a distribution of baselines.

captum's GradientShap draws from numpy's and torch's global generators, which other threads share, so the
expectation is computed here with generators of its own; captum stays as the oracle in the parity tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.baselines import BASELINES, Baseline, baseline_of, equal_notes
from attrib.methods.passes import generator, laid_out, normal, pairs, per_row, value_range

# (draws, rows) -> baselines, positions in [0, 1] and noise of those rows
Draw = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class GradientSHAP(Method):
    """E[(x̃ − x′) ⊙ ∂f/∂x(x′ + α (x̃ − x′))], x′ from the baselines, α ~ U(0, 1), x̃ = x + σn. Lundberg & Lee 2017.

    baseline: a name, or a tensor (any number, channel, height, width) to draw from with replacement.
    """

    n_samples: int = setting(32, "Random points; each costs a forward and a backward.", low=1, high=1000)
    baseline: Baseline = setting(
        "noise",
        {
            "image": "Where baselines are drawn from: noise (a new one each time), or one that stays.",
            "text": "Where baselines are drawn from: noise (new random tokens each time), or one that stays.",
        },
        choices=BASELINES,
    )
    noise_level: float = setting(0.0, "Noise on the input, as a share of its range.", low=0.0, high=1.0, advanced=True)
    seed: int = setting(0, "The same seed gives the same draws on every device.", low=0, advanced=True)

    name: ClassVar[str] = "gradient_shap"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    single_pass: ClassVar[bool] = False
    memory_factor: ClassVar[float] = 1.1
    card: ClassVar[Card] = Card(
        title="GradientSHAP",
        idea="Integrated gradients without betting on one blank input: average over many baselines.",
        formula="E[(x − x′) ⊙ ∂f/∂x(x′ + α(x − x′))] over baselines x′ and α ~ U(0, 1)",
        reference="Lundberg, Lee 2017, arXiv:1705.07874; Erion et al. 2019, arXiv:1906.10670",
        assumptions="The baselines are drawn from what 'nothing there' looks like; features are independent.",
        misleads="It is a random estimate: with few samples a second seed gives another map, and the sum "
        "misses the score difference by the completeness error shown.",
        cost="n_samples × (2 F + 1 B) + 1 F",
    )

    def explain(self, question: Question) -> Finding:
        if self.n_samples < 1 or self.noise_level < 0:
            raise InputError(f"n_samples = {self.n_samples}, noise_level = {self.noise_level}: use at least 1 and 0")
        question = laid_out(question, self.n_samples)
        score = question.settle()
        values, blank_score = expected_gradients(question, self.n_samples, self._draw(question))
        fixed = isinstance(self.baseline, str) and self.baseline != "noise"
        notes = equal_notes(question.x, baseline_of(self.baseline, question)) if fixed else ()
        return Finding(values, score, delta=values.flatten(1).sum(1) - (score - blank_score), notes=notes)

    def _draw(self, question: Question) -> Draw:
        x, sigma = question.x, self.noise_level * value_range(question.x, question.real)
        backgrounds = self._backgrounds(question)

        def draw(draws: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            unique = draws.unique()
            alphas = [torch.rand(1, generator=generator(self.seed, 2 * int(d)), dtype=torch.float64) for d in unique]
            alpha = torch.cat(alphas).to(x.dtype).to(x.device)[draws - draws[0]]
            noise = torch.zeros_like(x[rows])
            if self.noise_level:
                noise = sigma[rows] * normal(self.seed + 1, unique, x)[draws - draws[0]]
            blank = torch.stack([backgrounds(int(d))[int(r)] for d, r in zip(draws, rows, strict=True)])
            return blank, alpha, noise

        return draw

    def _backgrounds(self, question: Question) -> Callable[[int], Tensor]:
        """draw -> the baseline of every sample in that draw, (batch, channel, height, width)."""
        x = question.x
        if isinstance(self.baseline, Tensor):
            given = self.baseline if self.baseline.dim() == x.dim() else self.baseline[None]
            if tuple(given.shape[1:]) != tuple(x.shape[1:]):
                raise InputError(f"baselines of shape {tuple(given.shape)} do not fit inputs of shape {tuple(x.shape)}")
            given = given.to(x.dtype).to(x.device)
            return lambda d: given[self._which(d, len(given))].expand_as(x)
        if self.baseline == "noise":
            return lambda d: baseline_of("noise", question, seed=self.seed + 2 + d)
        fixed = baseline_of(self.baseline, question)
        return lambda d: fixed

    def _which(self, draw: int, n: int) -> int:
        return int(torch.randint(n, (1,), generator=generator(self.seed, 2 * draw + 1)))


def expected_gradients(question: Question, n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """Mean of (x̃ − x′) ⊙ ∂f/∂x(x′ + α (x̃ − x′)) over n draws, and the mean score of the baselines."""
    x = question.x
    total = torch.zeros_like(x)
    blank_score = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for draws, rows in pairs(question, n):
        blank, alpha, noise = draw(draws, rows)
        difference = x[rows] + noise - blank
        _, gradient = question.gradient(blank + per_row(alpha, x) * difference, rows)
        total.index_add_(0, rows, difference * gradient / n)
        with torch.no_grad():
            blank_score.index_add_(0, rows, question.scores(blank, rows).to(x.dtype) / n)
    return total, blank_score
