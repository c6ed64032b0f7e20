"""What every metric is: a frozen dataclass of settings, a card, and `score(trial, subject) -> Measured`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from attrib.attribution import Attribution
from attrib.binding import BoundTarget
from attrib.methods.base import Method

if TYPE_CHECKING:
    from attrib.metrics.trial import Model, Trial

Better = Literal["higher", "lower", "neither"]
Again = Callable[["Model", Tensor, BoundTarget], Tensor]


@dataclass(frozen=True)
class MetricCard:
    """What a reader should know about a metric, as the app, the report and the README show it."""

    title: str
    question: str
    formula: str
    reference: str
    misleads: str


@dataclass(frozen=True)
class Passes:
    """What a metric costs for one input and one map: forwards of the model, and maps made anew."""

    forwards: int = 0
    explanations: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forwards + other.forwards, self.explanations + other.explanations)

    def __mul__(self, times: int) -> Passes:
        return Passes(self.forwards * times, self.explanations * times)

    def __str__(self) -> str:
        parts = [f"{n} {word}{'s' * (n != 1)}" for n, word in self._counted() if n]
        return " and ".join(parts) or "no pass"

    def _counted(self) -> list[tuple[int, str]]:
        return [(self.forwards, "forward"), (self.explanations, "more explanation")]


@dataclass(frozen=True)
class Measured:
    """A metric's answer for one batch.

    values: (batch,) float64; NaN where there is no number, and `words` then says why.
    curve: (batch, points) where the number sums up a curve; at: (points,) its x-axis, named by `axis`.
    other: (batch, *sites) maps that the subject's were compared with; of several the most alike.
    """

    values: Tensor
    words: tuple[str, ...] = ()
    curve: Tensor | None = None
    at: tuple[float, ...] = ()
    axis: str = ""
    other: Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Subject:
    """One kind of map under trial: a method's, or a reference's that knows nothing of the model.

    maps: (batch, height, width) or (batch, tokens), float64 on the CPU.
    again: makes the maps anew for another model, other inputs (shaped as the trial's) or another target.
    attribution, method: the method and its result; None of references.
    """

    name: str
    maps: Tensor
    again: Again
    attribution: Attribution | None = None
    method: Method | None = None


class Metric:
    """Base of all metrics. Subclasses are frozen dataclasses whose fields have defaults, as methods are.

    better: which direction speaks for the map; "neither": the number describes and does not judge.
    chance_is_best: whether random maps have the best score by construction, so that no test against them says anything.
    ordering: whether only the order of the map's values counts, so that a constant map has no score.
    """

    card: ClassVar[MetricCard]
    name: ClassVar[str]  # the key in METRICS
    better: ClassVar[Better] = "higher"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    needs_mask: ClassVar[bool] = False
    chance_is_best: ClassVar[bool] = False
    ordering: ClassVar[bool] = False
    of_references: ClassVar[bool] = True  # whether maps that know nothing of the model have this score too

    def passes(self, model: Model) -> Passes:
        """What one input and one map cost; told before anything runs."""
        return Passes()

    def score(self, trial: Trial, subject: Subject) -> Measured:
        raise NotImplementedError


def nothing(batch: int, words: str) -> Measured:
    """No number for any input, and why."""
    return Measured(torch.full((batch,), float("nan"), dtype=torch.float64), (words,) * batch)
