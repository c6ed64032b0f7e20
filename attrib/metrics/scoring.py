"""A metric's answer to one subject, with words wherever there is no number."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attrib.metrics.base import Measured, Metric, Subject, nothing
from attrib.metrics.trial import Trial

BROKEN = "the map holds NaN or infinite values"
ZERO = "the map is zero everywhere"
CONSTANT = "the map is constant: it puts nothing before anything else"


def scored(metric: Metric, trial: Trial, subject: Subject) -> Measured:
    """The metric's answer, with words in place of a number where the map itself is broken or constant."""
    said = [_doubt(maps[inside], metric) for maps, inside in zip(subject.maps, trial.allowed, strict=True)]
    if all(said):
        return replace(nothing(len(trial), ""), words=tuple(said))
    maps = torch.nan_to_num(subject.maps, nan=0.0, posinf=0.0, neginf=0.0)
    measured = metric.score(trial, replace(subject, maps=maps))
    words = measured.words or ("",) * len(trial)
    values = torch.where(torch.tensor([bool(s) for s in said]), torch.nan, measured.values)
    without = [_without(maps[row][trial.allowed[row]]) if value != value else "" for row, value in enumerate(values)]
    return replace(measured, values=values, words=tuple(map(_first, said, words, without)))


def _first(*words: str) -> str:
    return next(filter(None, words), "")


def _without(values: Tensor) -> str:
    """Why there is no number where the metric itself did not say."""
    if not values.any():
        return ZERO
    return CONSTANT if float(values.amax() - values.amin()) == 0 else "a map that it is compared with is constant"


def _doubt(values: Tensor, metric: Metric) -> str:
    if not len(values):
        return "the text has no token but special ones"
    if not values.isfinite().all():
        return BROKEN
    return CONSTANT if metric.ordering and len(values) > 1 and float(values.amax() - values.amin()) == 0 else ""
