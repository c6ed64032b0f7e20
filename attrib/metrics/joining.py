"""Evaluations of parts of the inputs, put together: texts of one length at a time need no padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attrib.errors import InputError
from attrib.metrics.evaluation import Evaluation


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of all inputs, in the order of the parts, as if they had been evaluated together.

    parts: the same methods and metrics on different inputs, with one seed; InputError where they are not the same.
    Intervals and tests are computed over all inputs; agreements and the curves of references are means over them.
    """
    if not parts:
        raise InputError("nothing to join: give at least one evaluation")
    first = parts[0]
    for part in parts:
        differing = [key for key in ("model", "weights_hash", "methods", "metrics", "seed", "n_random")
                     if part.facts[key] != first.facts[key]]  # fmt: skip
        if differing or part.axes != first.axes:
            raise InputError(f"evaluations of different {', '.join(differing) or 'lengths of curves'} do not join")
    sizes = [len(part.facts["inputs"]) for part in parts]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    rows = [replace(row, input=row.input + start) for part, start in zip(parts, starts, strict=True)
            for row in part.rows]  # fmt: skip
    order = {key: place for place, key in enumerate((metric, method) for metric in first.metrics
                                                    for method in first.methods)}  # fmt: skip
    return replace(
        first,
        rows=tuple(sorted(rows, key=lambda row: order[row.metric, row.method])),
        agreement=_means(parts, sizes, lambda part: part.agreement),
        reference_curves=_means(parts, sizes, lambda part: part.reference_curves),
        facts=first.facts | {
            "inputs": [name for part in parts for name in part.facts["inputs"]],
            "target": [each for part in parts for each in part.facts["target"]],
            "seconds": sum(part.facts["seconds"] for part in parts),
        },
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )  # fmt: skip


def _means(parts: Sequence[Evaluation], sizes: list[int], table: Callable[[Evaluation], dict[Any, Any]]) -> Any:
    """Key → tuple of numbers, averaged over parts by how many inputs each has; what is no number counts nowhere."""
    found = {}
    for key in table(parts[0]):
        values = np.array([table(part)[key] for part in parts], dtype=float)
        weights = np.where(np.isfinite(values), np.array(sizes, dtype=float)[:, None], 0.0)
        total = weights.sum(0)
        sums = (np.nan_to_num(values) * weights).sum(0)
        found[key] = tuple(np.where(total > 0, sums / np.maximum(total, 1), np.nan).tolist())
    return found
