"""Methods on trial: their maps of the inputs, and how they are made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from attrib.attribution import Attribution
from attrib.binding import BoundTarget
from attrib.chunks import Progress
from attrib.errors import InputError
from attrib.explain import explain
from attrib.methods.base import Method
from attrib.metrics.base import Subject
from attrib.metrics.trial import Trial
from attrib.targets import Logit, LogitDiff, LogProb


def subjects_of(
    trial: Trial,
    inputs: Any,
    methods: list[Method],
    begin: Callable[[str], Callable[[float], None]],
    max_memory: int | None,
) -> list[Subject]:
    """The methods' results on trial, their names distinct. begin: the progress of a task of that name."""
    found: list[Subject] = []
    target = exactly(trial.target)
    for method in methods:
        told = begin(f"maps of {method.name}")
        result = explain(trial.model, inputs, method, target, max_memory=max_memory, on_progress=_alone(told))
        found.append(subject_of(trial, method, result))
    return _distinct(found)


def _alone(told: Callable[[float], None]) -> Progress:
    return lambda fraction, message: told(fraction)


def exactly(target: BoundTarget) -> Any:
    """A bound target as `attrib.explain` takes it."""
    if target.function is not None:
        return target.function
    assert target.positive is not None  # settled
    first = target.positive.tolist()
    if target.kind == "difference" and target.negative is not None:
        return [LogitDiff(a, b) for a, b in zip(first, target.negative.tolist(), strict=True)]
    return [LogProb(a) if target.kind == "log_probability" else Logit(a) for a in first]


def subject_of(trial: Trial, method: Method, result: Attribution) -> Subject:
    """A method's result on trial."""
    if trial.is_text:
        maps = result.values.detach().cpu().double()
    else:
        maps = torch.from_numpy(result.heatmap((trial.allowed.shape[1], trial.allowed.shape[2]))).double()
    if maps.shape != trial.allowed.shape:
        raise InputError(f"maps of shape {tuple(maps.shape)} do not lie on inputs of {tuple(trial.allowed.shape)}")
    return Subject(
        method.name, maps, lambda model, x, target: trial.explained(method, model, x, target), result, method
    )


def _distinct(subjects: list[Subject]) -> list[Subject]:
    counts: dict[str, int] = {}
    found = []
    for subject in subjects:
        counts[subject.name] = counts.get(subject.name, 0) + 1
        n = counts[subject.name]
        found.append(subject if n == 1 else replace(subject, name=f"{subject.name}_{n}"))
    return found
