"""The result of an evaluation: a row per input, method and metric, and what they say together."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attrib.errors import InputError
from attrib.metrics.statistics import interval, sign_flip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Row:
    """One number: a metric of a method's map of one input, and the same of maps that know nothing of the model.

    value: NaN where there is none, and `words` says why. references: by name ("random", "random_regions", "centre",
    "edges"), random ones as the mean over their draws. curve: the points of `Evaluation.axes[metric]`.
    """

    input: int
    method: str
    metric: str
    value: float
    references: dict[str, float]
    words: str = ""
    curve: tuple[float, ...] = ()


@dataclass(frozen=True)
class Summary:
    """One method and one metric over all inputs.

    low, high: the bootstrap interval of the mean; None for fewer than three inputs with a number.
    p: by reference, one-sided sign-flip test that the map is better, paired by input; None where it cannot be made.
    verdict: "better than random", "not better than random", or in words why there is neither.
    """

    method: str
    metric: str
    better: str
    mean: float
    low: float | None
    high: float | None
    inputs: int
    references: dict[str, float]
    p: dict[str, float | None]
    verdict: str


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
        return [self._line(method, metric) for metric in self.metrics for method in self.methods]

    def _of(self, method: str, metric: str) -> list[Row]:
        return [row for row in self.rows if row.method == method and row.metric == metric]

    def _line(self, method: str, metric: str) -> Summary:
        rows, better, seed = self._of(method, metric), self.better[metric], int(self.facts["seed"])
        values = np.array([row.value for row in rows])
        names = rows[0].references
        references = {name: np.array([row.references[name] for row in rows]) for name in names}
        finite = values[np.isfinite(values)]
        bounds = interval(values, self.confidence, seed)
        sign = {"higher": 1.0, "lower": -1.0}.get(better)
        p = {} if sign is None else {name: sign_flip(sign * (values - r), seed) for name, r in references.items()}
        return Summary(
            method, metric, better, float(finite.mean()) if len(finite) else math.nan,
            None if bounds is None else bounds[0], None if bounds is None else bounds[1], len(finite),
            {name: _mean(r) for name, r in references.items()}, p, self._verdict(rows, len(finite), p, better),
        )  # fmt: skip

    def _verdict(self, rows: list[Row], finite: int, p: dict[str, float | None], better: str) -> str:
        if not finite:
            return next((row.words for row in rows if row.words), "no number")
        random = [value for name, value in p.items() if name.startswith("random")]
        if better == "neither":
            return "describes, does not judge"
        if not random:
            return "no random map has this score"
        if any(value is None for value in random):
            return "too few inputs for a test: three are the least"
        worst = max(value for value in random if value is not None)
        return "better than random" if worst <= 1 - self.confidence else "not better than random"

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
        return number(_mean(np.array(found)))

    def plot(self) -> Figure:
        """Means with intervals beside the references, and the curves of the metrics that have some."""
        from attrib.metrics.figure import figure  # deferred: matplotlib is slow to import

        return figure(self)

    def _repr_html_(self) -> str:
        from attrib.metrics.page import fragment

        return fragment(self)

    def document(self) -> dict[str, Any]:
        """Everything as JSON can hold it; a number that is none is null."""
        document: dict[str, Any] = _plain(
            {
                "format": FORMAT_VERSION, "facts": self.facts, "notes": self.notes, "confidence": self.confidence,
                "better": self.better, "axes": self.axes, "axis_names": self.axis_names,
                "rows": [asdict(row) for row in self.rows],
                "reference_curves": [[*key, curve] for key, curve in self.reference_curves.items()],
                "agreement": [[*pair, *both] for pair, both in self.agreement.items()],
                "summary": [asdict(line) for line in self.summary()],
            }
        )  # fmt: skip
        return document

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write evaluation.json, rows.csv and summary.md into `folder`."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / "evaluation.json").write_text(json.dumps(self.document(), indent=1, allow_nan=False))
        (path / "rows.csv").write_text(self.csv())
        (path / "summary.md").write_text(self.markdown() + "\n")
        return path

    def csv(self) -> str:
        """A line per row: input, method, metric, value, a column per reference, words."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.references))
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerow(["input", "method", "metric", "value", *names, "words"])
        for row in self.rows:
            references = [row.references.get(name, math.nan) for name in names]
            writer.writerow([row.input, row.method, row.metric, row.value, *references, row.words])
        return buffer.getvalue()

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Evaluation:
        """Read what `save` wrote. Raises InputError when the folder is not such a result."""
        path = Path(folder)
        try:
            return _from_document(json.loads((path / "evaluation.json").read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} holds no saved evaluation: {error}") from error


_ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}


def number(value: float) -> str:
    """Three digits, or a dash."""
    return "–" if not math.isfinite(value) else f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"


def _cell(line: Summary) -> str:
    if not math.isfinite(line.mean):
        return "–"
    star = "*" if line.verdict == "better than random" else ""
    around = "" if line.low is None or line.high is None else f" [{number(line.low)}, {number(line.high)}]"
    return f"{number(line.mean)}{star}{around}"


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _from_document(document: dict[str, Any]) -> Evaluation:
    if document["format"] != FORMAT_VERSION:
        raise InputError(f"saved with format {document['format']}, this version reads format {FORMAT_VERSION}")
    rows = [
        Row(
            r["input"], r["method"], r["metric"], _number(r["value"]),
            {name: _number(v) for name, v in r["references"].items()}, r["words"], tuple(map(_number, r["curve"])),
        )
        for r in document["rows"]
    ]  # fmt: skip
    return Evaluation(
        rows=tuple(rows),
        better=document["better"],
        axes={name: tuple(at) for name, at in document["axes"].items()},
        axis_names=document["axis_names"],
        agreement={(a, b): (_number(r), _number(o)) for a, b, r, o in document["agreement"]},
        facts=document["facts"],
        reference_curves={(m, r): tuple(map(_number, c)) for m, r, c in document["reference_curves"]},
        confidence=document["confidence"],
        notes=tuple(document["notes"]),
    )
