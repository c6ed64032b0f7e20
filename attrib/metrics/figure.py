"""A matplotlib figure of an evaluation: means with intervals beside the references, and curves where there are some."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # not pyplot: no global state, no window

from attrib.metrics.evaluation import Evaluation

_GREYS = {"random": "0.35", "random_regions": "0.5", "centre": "0.62", "edges": "0.74"}


def figure(evaluation: Evaluation) -> Figure:
    """A row per metric: on the left every method's mean, on the right the mean curves if the metric has curves."""
    metrics = evaluation.metrics
    sheet = Figure(figsize=(10.0, 0.9 + (0.7 + 0.24 * len(evaluation.methods)) * len(metrics)), layout="constrained")
    axes = sheet.subplots(len(metrics), 2, squeeze=False, width_ratios=(3, 2))
    for (left, right), metric in zip(axes, metrics, strict=True):
        _means(left, evaluation, metric)
        _curves(right, evaluation, metric)
    return sheet


def _means(axis: Any, evaluation: Evaluation, metric: str) -> None:
    lines = [line for line in evaluation.summary() if line.metric == metric]
    for place, line in enumerate(lines):
        if not math.isfinite(line.mean):
            axis.text(0.02, place, line.verdict, transform=axis.get_yaxis_transform(), fontsize=7, va="center")
            continue
        low, high = (line.mean if bound is None else bound for bound in (line.low, line.high))
        around = [[max(0.0, line.mean - low)], [max(0.0, high - line.mean)]]
        filled = "tab:blue" if line.verdict == "better than random" else "white"
        axis.errorbar(line.mean, place, xerr=around, fmt="o", color="tab:blue", mfc=filled, capsize=2, markersize=5)
    for name, value in (lines[0].references if lines else {}).items():
        if math.isfinite(value):
            axis.axvline(
                value, color=_GREYS.get(name, "0.5"), linestyle="--", linewidth=1, label=name.replace("_", " ")
            )
    axis.set_yticks(range(len(lines)), [line.method for line in lines], fontsize=7)
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=7)
    better = evaluation.better[metric]
    axis.set_title(metric.replace("_", " ") + ("" if better == "neither" else f" ({better} is better)"), fontsize=8)
    if any(math.isfinite(value) for value in (lines[0].references if lines else {}).values()):
        axis.legend(fontsize=6, loc="best")


def _curves(axis: Any, evaluation: Evaluation, metric: str) -> None:
    at = evaluation.axes.get(metric, ())
    if len(at) < 2:
        axis.set_axis_off()
        return
    for method in evaluation.methods:
        curves = [row.curve for row in evaluation.rows if (row.method, row.metric) == (method, metric) and row.curve]
        if curves:
            axis.plot(at, np.nanmean(np.array(curves), axis=0), label=method, linewidth=1)
    for (name, reference), curve in evaluation.reference_curves.items():
        if name == metric and len(curve) == len(at):
            axis.plot(
                at, curve, "--", color=_GREYS.get(reference, "0.5"), label=reference.replace("_", " "), linewidth=1
            )
    axis.set_xlabel(evaluation.axis_names[metric], fontsize=7)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=6)
