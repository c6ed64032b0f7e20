"""Models whose best map is known, maps given by hand, and trials to put them on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import attrib
from attrib.binding import bind
from attrib.methods.base import Card, Finding, Method, Question
from attrib.metrics.base import Subject
from attrib.metrics.trial import Trial


class Linear(nn.Module):
    """logits = (Σ w x, 0); with x = 1 everywhere, w is the one right map."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        first = (x * self.weights).flatten(1).sum(1)
        return torch.stack([first, torch.zeros_like(first)], 1)


class Still(nn.Module):
    """Says the same whatever it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias + 0 * x.flatten(1).sum(1, keepdim=True)


@dataclass(frozen=True)
class Given(Method):
    """Finds what it is told to find."""

    maps: Any = None

    name: ClassVar[str] = "given"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    card: ClassVar[Card] = Card("", "", "", "", "", "", "")

    def explain(self, question: Question) -> Finding:
        values = self.maps.to(question.x)
        kind = "tokens" if question.is_text else "layer"
        return Finding(values, question.settle(), kind=kind)  # type: ignore[arg-type]


def linear(*shape: int, seed: int = 0) -> tuple[Any, Tensor]:
    """(model, its one right map (1, height, width)); weights are positive and all different."""
    weights = torch.randperm(shape[0] * shape[1], generator=torch.Generator().manual_seed(seed)).double() + 1
    weights = weights.reshape(1, *shape) / weights.sum()
    return attrib.wrap(Linear(weights)), weights


def trial(model: Any, inputs: Any, target: Any = 0, **options: Any) -> Trial:
    encoded = model.encode(inputs)
    masks = options.pop("masks", None)
    made = Trial.of(model, encoded, bind(target, len(encoded.x), model.index_of), 4, **options)
    return made if masks is None else replace(made, masks=masks)


def subject(maps: Tensor) -> Subject:
    return Subject("given", maps.double(), lambda model, x, target: maps.double())
