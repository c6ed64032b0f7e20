"""The rows of an evaluation as they come in: each metric of the references once, then of every method; and progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attrib.chunks import Progress
from attrib.metrics.base import Measured, Metric, Subject
from attrib.metrics.scoring import scored
from attrib.metrics.summary import Row
from attrib.metrics.trial import Trial


@dataclass
class Tasks:
    """Progress over tasks of unequal length, counted as equal; what on_progress raises ends everything."""

    report: Progress | None
    n: int
    done: int = 0

    def begin(self, message: str) -> Callable[[float], None]:
        """The progress of one more task, from 0 to 1."""
        start = self.done
        self.done += 1
        furthest = [0.0]  # a metric may go over its inputs twice

        def told(fraction: float) -> None:
            furthest[0] = max(furthest[0], fraction)
            if self.report is not None:
                self.report(min(1.0, (start + furthest[0]) / max(1, self.n)), message)

        told(0.0)
        return told

    def finish(self) -> None:
        if self.report is not None:
            self.report(1.0, "evaluated")


@dataclass
class Book:
    """Rows as they come in."""

    trial: Trial
    subjects: list[Subject]
    nobodies: dict[str, list[Subject]]
    rows: list[Row] = field(default_factory=list)
    axes: dict[str, tuple[float, ...]] = field(default_factory=dict)
    axis_names: dict[str, str] = field(default_factory=dict)
    curves: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)

    def measure(self, name: str, metric: Metric, tasks: Tasks) -> None:
        """The references once, then a row per method and input."""
        beside: dict[str, Tensor] = {}
        for reference, draws in self.nobodies.items() if metric.of_references else ():
            found = [self._measured(metric, draw, tasks, name) for draw in draws]
            beside[reference] = torch.stack([each.values for each in found]).nanmean(0)
            if found[0].curve is not None:
                mean = torch.stack([each.curve for each in found if each.curve is not None]).mean((0, 1))
                self.curves[name, reference] = tuple(mean.tolist())
        for subject in self.subjects:
            measured = self._measured(metric, subject, tasks, name)
            self.axes[name], self.axis_names[name] = measured.at, measured.axis
            self.rows += [self._row(i, subject.name, name, measured, beside) for i in range(len(self.trial))]

    def _measured(self, metric: Metric, subject: Subject, tasks: Tasks, name: str) -> Measured:
        self.trial.on_progress = tasks.begin(f"{name} of {subject.name}")
        return scored(metric, self.trial, subject)

    def _row(self, i: int, method: str, metric: str, measured: Measured, beside: dict[str, Tensor]) -> Row:
        curve = () if measured.curve is None else tuple(measured.curve[i].tolist())
        words = measured.words[i] if measured.words else ""
        values = {name: float(found[i]) for name, found in beside.items()}
        return Row(i, method, metric, float(measured.values[i]), values, words, curve)
