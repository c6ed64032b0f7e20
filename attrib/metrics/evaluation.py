"""The result of an evaluation: a row per input, method and metric, and what they say together."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attrib.errors import InputError
from attrib.metrics import METRICS
from attrib.metrics.summary import Row, Summary, mean, number, summarised

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Evaluation:
    """What `attrib.evaluate` found. curves of references: (metric, reference) → mean curve over inputs and draws."""

    rows: tuple[Row, ...]
    better: dict[str, str]  # metric -> "higher", "lower" or "neither"
    axes: dict[str, tuple[float, ...]]
    axis_names: dict[str, str]
    agreement: dict[tuple[str, str], tuple[float, float]]  # two methods -> (Spearman, overlap of the tops), means
    facts: dict[str, Any]
    reference_curves: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)
    confidence: float = 0.95
    notes: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.method for row in self.rows))

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.better)

    def values(self, method: str, metric: str) -> np.ndarray:
        """(inputs,): the numbers of one method and one metric; NaN where there is none."""
        found = [row.value for row in self._of(method, metric)]
        if not found:
            raise InputError(f"nothing was evaluated for {method!r} and {metric!r}; there are {self.methods}")
        return np.array(found)

    def summary(self) -> list[Summary]:
        """One line per method × metric, in the order they were given."""
        seed = int(self.facts["seed"])
        return [
            summarised(self._of(method, metric), better, self.confidence, seed, _chance_is_best(metric))
            for metric, better in self.better.items()
            for method in self.methods
        ]

    def _of(self, method: str, metric: str) -> list[Row]:
        return [row for row in self.rows if row.method == method and row.metric == metric]

    def markdown(self) -> str:
        """The summary as a Markdown table: methods down, metrics across, means with intervals; * better than random."""
        lines = {(line.method, line.metric): line for line in self.summary()}
        head = ["method", *(f"{m} {_ARROWS[self.better[m]]}" for m in self.metrics)]
        table = [head, ["---"] * len(head)]
        table += [[method, *(_cell(lines[method, metric]) for metric in self.metrics)] for method in self.methods]
        for name in dict.fromkeys(name for row in self.rows for name in row.references):
            shown = [self._reference(name, metric) for metric in self.metrics]
            table.append([f"*{name.replace('_', ' ')}*", *shown])
        return "\n".join("| " + " | ".join(cells) + " |" for cells in table)

    def _reference(self, name: str, metric: str) -> str:
        found = [row.references.get(name, math.nan) for row in self._of(self.methods[0], metric)]
        return number(mean(np.array(found)))

    def plot(self) -> Figure:
        """Means with intervals beside the references, and the curves of the metrics that have some."""
        from attrib.metrics.figure import figure  # deferred: matplotlib is slow to import

        return figure(self)

    def _repr_html_(self) -> str:
        from attrib.metrics.page import fragment

        return fragment(self)

    def document(self) -> dict[str, Any]:
        """Everything as JSON can hold it; a number that is none is null."""
        from attrib.metrics.saved import document

        return document(self)

    def csv(self) -> str:
        """A line per row: input, method, metric, value, a column per reference, words."""
        from attrib.metrics.saved import table

        return table(self.rows)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write evaluation.json, rows.csv and summary.md into `folder`."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / "evaluation.json").write_text(json.dumps(self.document(), indent=1, allow_nan=False))
        (path / "rows.csv").write_text(self.csv())
        (path / "summary.md").write_text(self.markdown() + "\n")
        return path

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Evaluation:
        """Read what `save` wrote. Raises InputError when the folder is not such a result."""
        from attrib.metrics.saved import restored

        path = Path(folder)
        try:
            return restored(json.loads((path / "evaluation.json").read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} holds no saved evaluation: {error}") from error


_ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}


def _cell(line: Summary) -> str:
    if not math.isfinite(line.mean):
        return "–"
    star = "*" if line.verdict == "better than random" else ""
    around = "" if line.low is None or line.high is None else f" [{number(line.low)}, {number(line.high)}]"
    return f"{number(line.mean)}{star}{around}"


def _chance_is_best(metric: str) -> bool:
    return metric in METRICS and METRICS[metric].chance_is_best
