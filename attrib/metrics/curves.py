"""Curves of a score while pixels or tokens go or come in the order of a map, and their areas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attrib.metrics.base import Measured
from attrib.metrics.remains import outcomes
from attrib.metrics.trial import Trial

UNCHANGED = "the model's output does not change, whatever is removed"
_LAST = 2**31 - 1
BLANK_HELP = "What stands for a missing pixel or token: a baseline's name; auto: zero, of texts the unknown token."


def ranks(maps: Tensor, allowed: Tensor, ties: Tensor) -> Tensor:
    """(batch, *sites) int32: 0 is the most relevant; what does not count comes last. `ties` decides between equals."""
    found = torch.full(allowed.shape, _LAST, dtype=torch.int32)
    for row, inside in enumerate(allowed):
        order = np.lexsort((ties[inside].numpy(), -maps[row][inside].numpy()))
        places = np.empty(len(order), dtype=np.int32)
        places[order] = np.arange(len(order), dtype=np.int32)
        found[row][inside] = torch.from_numpy(places)
    return found


@dataclass(frozen=True)
class Course:
    """What is left of every input at every step: sites whose rank is in [low, high) of that step, (steps, batch)."""

    ranks: Tensor
    low: Tensor
    high: Tensor

    @staticmethod
    def removing(trial: Trial, maps: Tensor, counts: Tensor) -> Course:
        """counts: (steps, batch), how many sites of the highest rank are gone."""
        return Course(ranks(maps, trial.allowed, trial.drawn(3)), counts, sizes(trial).expand_as(counts))

    @staticmethod
    def building(trial: Trial, maps: Tensor, counts: Tensor) -> Course:
        """The same with only these sites left."""
        return Course(ranks(maps, trial.allowed, trial.drawn(3)), torch.zeros_like(counts), counts)

    @staticmethod
    def pruning(trial: Trial, maps: Tensor, counts: Tensor) -> Course:
        """The same with as many sites of the lowest rank gone."""
        return Course.building(trial, maps, sizes(trial) - counts)

    def shown(self, step: Tensor, sample: Tensor) -> Tensor:
        """(rows, *sites) bool: what is left of these samples at these steps."""
        own = self.ranks[sample]
        shape = (-1, *[1] * (own.dim() - 1))
        low, high = (bound[step, sample].reshape(shape) for bound in (self.low, self.high))
        return (own >= low) & (own < high)


def outcomes_along(trial: Trial, course: Course, blank: str, read: str = "probability") -> Tensor:
    """(batch, steps): the outcome after every step of the course; blank: the name of what stands for the rest."""
    return outcomes(trial, len(course.low), course.shown, blank, read).T


def sizes(trial: Trial) -> Tensor:
    """(batch,): how many pixels or tokens count."""
    return trial.allowed.flatten(1).sum(1)


def area(curves: Tensor, at: Tensor) -> Tensor:
    """(batch,): the trapezoid area below each curve, divided by the width of the x-axis."""
    if curves.shape[1] == 1:
        return curves[:, 0]
    found: Tensor = torch.trapezoid(curves, at.to(curves), dim=1) / (at[-1] - at[0]).to(curves)
    return found


def measured_along(values: Tensor, curves: Tensor, at: Tensor, axis: str, judged: Tensor | None = None) -> Measured:
    """Curves that do not move at all say nothing of the map. judged: the curves that tell, where others are shown."""
    moving = curves if judged is None else judged
    still = (moving.amax(1) - moving.amin(1)) <= 1e-12
    words = tuple(UNCHANGED if one else "" for one in still.tolist())
    return Measured(torch.where(still, torch.nan, values), words, curves, tuple(at.tolist()), axis)
