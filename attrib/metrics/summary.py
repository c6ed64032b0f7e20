"""What the rows of one method and one metric say together: a mean, its interval, and whether it beats random maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attrib.metrics.statistics import interval, sign_flip


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


CHANCE_IS_BEST = "random maps are best here by construction: no test against them"


def summarised(rows: Sequence[Row], better: str, confidence: float, seed: int, chance_is_best: bool = False) -> Summary:
    """The rows of one method and one metric, together. better: "higher", "lower" or "neither".

    chance_is_best: as of the metric; then there is no test.
    """
    values = np.array([row.value for row in rows])
    names = rows[0].references
    references = {name: np.array([row.references[name] for row in rows]) for name in names}
    finite = values[np.isfinite(values)]
    bounds = interval(values, confidence, seed)
    sign = None if chance_is_best else {"higher": 1.0, "lower": -1.0}.get(better)
    p = {} if sign is None else {name: sign_flip(sign * (values - r), seed) for name, r in references.items()}
    return Summary(
        rows[0].method, rows[0].metric, better, float(finite.mean()) if len(finite) else math.nan,
        None if bounds is None else bounds[0], None if bounds is None else bounds[1], len(finite),
        {name: mean(r) for name, r in references.items()}, p,
        _verdict(rows, len(finite), p, better, confidence, chance_is_best),
    )  # fmt: skip


def _verdict(
    rows: Sequence[Row], finite: int, p: dict[str, float | None], better: str, confidence: float, chance_is_best: bool
) -> str:
    if not finite:
        return next((row.words for row in rows if row.words), "no number")
    if chance_is_best:
        return CHANCE_IS_BEST
    random = [value for name, value in p.items() if name.startswith("random")]
    if better == "neither":
        return "describes, does not judge"
    if not random:
        return "no random map has this score"
    if any(value is None for value in random):
        return "too few inputs for a test: three are the least"
    if 0.5**finite > 1 - confidence:
        return f"too few inputs for a verdict: with {finite} no p is below {0.5**finite:.2g}"
    worst = max(value for value in random if value is not None)
    return "better than random" if worst <= 1 - confidence else "not better than random"


def number(value: float) -> str:
    """Three digits, or a dash."""
    return "–" if not math.isfinite(value) else f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"


def mean(values: np.ndarray) -> float:
    """Of the finite ones; NaN where there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan
