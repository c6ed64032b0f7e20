"""AU-AC and AU-MSE: texts whose tokens are generated or pruned in the order of a map, as PA-LRP is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.methods.base import setting
from attrib.metrics.base import Better, Measured, Metric, MetricCard, Passes, Subject
from attrib.metrics.curves import BLANK_HELP, Course, area, measured_along, outcomes_along, sizes
from attrib.metrics.remains import everything, logits, outcomes
from attrib.metrics.trial import Model, Trial


@dataclass(frozen=True)
class ActivationCurve(Metric):
    """AU-AC: area below the probability while tokens are generated or pruned. Bakish et al. 2025 (PA-LRP)."""

    order: Literal["generate", "prune"] = setting(
        "generate", "generate: from nothing, the most relevant comes first; prune: the least relevant goes first.",
        choices=("generate", "prune"),
    )  # fmt: skip
    ranking: Literal["signed", "absolute"] = setting(
        "signed", "Whether a token that speaks against the class is the least relevant, or as relevant as one for it.",
        choices=("signed", "absolute"),
    )  # fmt: skip
    steps: int = setting(10, "Steps; each costs a forward.", low=1, high=100)
    blank: str = setting("auto", BLANK_HELP)

    name: ClassVar[str] = "au_ac"
    better: ClassVar[Better] = "higher"
    applies_to: ClassVar[frozenset[str]] = frozenset({"text"})
    ordering: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="AU-AC",
        question="Is the class found early when tokens come in the order of the map, or kept long when the others go?",
        formula="area below the class' probability, ⌈share × tokens⌉ of them generated or pruned, shares 0, 0.1, …, 1",
        reference="Bakish, Zimerman, Chefer, Wolf 2025, arXiv:2506.02138",
        misleads="Sentences of unknown tokens are no sentences. A class that an empty sentence has already makes every "
        "map look good.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(self.steps + 1)

    def score(self, trial: Trial, subject: Subject) -> Measured:
        shares, course = self.course(trial, subject)
        curves = outcomes_along(trial, course, self.blank)
        return measured_along(area(curves, shares), curves, shares, f"share of the tokens, {self.order}d")

    def course(self, trial: Trial, subject: Subject) -> tuple[Tensor, Course]:
        """(shares, which tokens are left at each of them)."""
        if self.order not in ("generate", "prune") or self.ranking not in ("signed", "absolute") or self.steps < 1:
            raise InputError(
                f"order {self.order!r}, ranking {self.ranking!r}, steps {self.steps}: order is generate or prune, "
                "ranking signed or absolute, and one step the least"
            )
        maps = subject.maps if self.ranking == "signed" else subject.maps.abs()
        shares = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        # 0.3 × 10 is a little more than 3
        counts = (shares[:, None] * sizes(trial) - 1e-9).ceil().long()
        laid = Course.building if self.order == "generate" else Course.pruning
        return shares, laid(trial, maps, counts)


@dataclass(frozen=True)
class OutputErrorCurve(ActivationCurve):
    """AU-MSE: area below the squared change of the logits while tokens are pruned. Bakish et al. 2025 (PA-LRP)."""

    order: Literal["generate", "prune"] = setting(
        "prune", "prune: the least relevant goes first; generate: the most relevant comes first.",
        choices=("generate", "prune"),
    )  # fmt: skip
    ranking: Literal["signed", "absolute"] = setting(
        "absolute", "Whether a token against the class counts as least relevant, or as relevant as one for it.",
        choices=("signed", "absolute"),
    )  # fmt: skip

    name: ClassVar[str] = "au_mse"
    better: ClassVar[Better] = "lower"
    card: ClassVar[MetricCard] = MetricCard(
        title="AU-MSE",
        question="Do the logits stay as they are while what the map calls irrelevant is removed?",
        formula="area below Σ (logits − those of the whole text)² over classes; of language models the target's alone",
        reference="Bakish, Zimerman, Chefer, Wolf 2025, arXiv:2506.02138",
        misleads="Logits may move a lot without the prediction changing. The size depends on the model: compare "
        "maps of one model only.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(self.steps + 2)

    def score(self, trial: Trial, subject: Subject) -> Measured:
        shares, course = self.course(trial, subject)
        if getattr(trial.model, "task", "classification") == "classification":
            found = logits(trial, len(course.low), course.shown, self.blank)
            curves = (found - logits(trial, 1, everything(trial), self.blank)).square().sum(2).T
        else:
            whole = outcomes(trial, 1, everything(trial), self.blank, "score")[0]
            curves = (outcomes_along(trial, course, self.blank, "score") - whole[:, None]).square()
        return measured_along(area(curves, shares), curves, shares, f"share of the tokens, {self.order}d")
