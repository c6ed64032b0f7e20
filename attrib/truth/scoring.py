"""Methods against known truth: where their maps lie, and how much they give to positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attrib.explain import explain
from attrib.methods import METHODS, method_named
from attrib.methods.base import Method
from attrib.metrics.evaluate import evaluate
from attrib.metrics.evaluation import Evaluation
from attrib.metrics.localisation import PointingGame, RankAccuracy, RelevanceMass
from attrib.truth.base import Truth

METRICS = (RelevanceMass("absolute"), RankAccuracy("absolute"), PointingGame("absolute", tolerance=0.0))


def score(truth: Truth, methods: Sequence[Method | str] | None = None, **options: Any) -> Evaluation:
    """Every method's maps of the task's inputs against its masks: relevance mass, rank accuracy, pointing game.

    Sizes count and not signs: what turns a meaning may speak for the class or against it. methods: None = all that
    apply to the task's model, with default settings. options: of `attrib.evaluate`.
    """
    chosen = list(fitting(truth)) if methods is None else list(methods)
    return evaluate(truth.model, truth.inputs, chosen, METRICS, truth.targets, truth.masks, **options)


def fitting(truth: Truth) -> list[str]:
    """The methods that explain this kind of model and need no second prompt."""
    text = truth.model.kind == "text"
    return [name for name, cls in METHODS.items() if truth.model.kind in cls.applies_to and text >= cls.needs_attention]


def position_share(truth: Truth, method: Method | str) -> Tensor:
    """(inputs,): of the score's difference between a text and its twin, the share that is booked on positions.

    What it should be, `Truth.on_positions` says. 0 for methods that give positions nothing.
    """
    method = method_named(method)
    here, there = (
        explain(truth.model, texts, method, truth.targets) for texts in (truth.inputs, truth.twins)
    )  # fmt: skip
    if here.parts is None or there.parts is None or "position" not in here.parts:
        return torch.zeros(len(here), dtype=torch.float64)
    booked = [result.parts["position"].double().sum(1) for result in (here, there) if result.parts is not None]
    return (booked[0] - booked[1]) / (here.score.double() - there.score.double())
