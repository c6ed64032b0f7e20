"""`attrib.evaluate`: methods × metrics × inputs, beside maps that know nothing of the model."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attrib.binding import bind
from attrib.chunks import Progress
from attrib.errors import InputError, NotApplicable
from attrib.explain import check_applies
from attrib.methods import method_named
from attrib.methods.base import Method
from attrib.metrics import METRICS, metric_named
from attrib.metrics.agreement import rank_correlations, top_overlaps
from attrib.metrics.base import Metric, Passes, Subject
from attrib.metrics.book import Book, Tasks
from attrib.metrics.evaluation import Evaluation
from attrib.metrics.localisation import masks_of
from attrib.metrics.of_pairs import evaluate_pairs
from attrib.metrics.references import references
from attrib.metrics.subjects import subjects_of
from attrib.metrics.trial import Model, Trial
from attrib.patching.pair import Pair
from attrib.provenance import plain
from attrib.targets import Targets


def evaluate(
    model: Model,
    inputs: Any,
    methods: Sequence[Method | str] | Method | str,
    metrics: Sequence[Metric | str] | Metric | str,
    target: Targets = None,
    masks: Any = None,
    *,
    n_random: int = 5,
    seed: int = 0,
    confidence: float = 0.95,
    max_memory: int | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """How good are the maps of `methods`, by `metrics`, and are they better than maps that know nothing?

    inputs, target: as of `attrib.explain`; every method explains the same target. Methods that compare two prompts
        take an `attrib.pair` and are measured by patching_correlation.
    methods, metrics: objects, or names from `attrib.METHODS` and `attrib.METRICS`.
    masks: where the object is, for the metrics that ask for it: (batch, height, width) of what the model sees, or
        boxes (left, top, right, bottom); of texts (batch, tokens).
    n_random: how many random maps of each kind every score is compared with; the centre prior and, of pictures, the
        edge detector come on top. 0: no comparison. Each costs what the metric costs: see `cost`.
    seed: decides all that is random; equal seeds give equal results, in any batch and in any chunks.
    max_memory, on_progress: as of `attrib.explain`; what on_progress raises stops the evaluation.

    Raises InputError for masks that do not fit or are missing, NotApplicable for a metric that has no meaning on
    this kind of model, and the errors of `attrib.explain`.
    """
    started = time.perf_counter()
    _check_numbers(seed, confidence)
    chosen = [method_named(method) for method in _listed(methods)]
    asked = _named([metric_named(metric) for metric in _listed(metrics)])
    if isinstance(inputs, Pair):
        return evaluate_pairs(
            model, inputs, _some(chosen, asked, n_random), asked, target, n_random, seed, confidence, on_progress,
            max_memory=max_memory,
        )  # fmt: skip
    _check(model, chosen, asked, masks, n_random)
    encoded = model.encode(inputs)
    bound = bind(target, len(encoded.x), model.index_of)
    passes = cost(model, chosen, list(asked.values()), n_random).forwards
    trial = Trial.of(model, encoded, bound, passes, seed=seed, max_memory=max_memory)
    if masks is not None:
        trial = replace(trial, masks=masks_of(masks, tuple(trial.allowed.shape)))
    tasks = Tasks(on_progress, len(asked) * (len(chosen) + 2 * n_random + 2) + len(chosen))
    subjects = subjects_of(trial, inputs, chosen, tasks.begin, max_memory)
    nobodies = references(trial, n_random) if n_random else {}
    book = Book(trial, subjects, nobodies)
    for name, metric in asked.items():
        book.measure(name, metric, tasks)
    tasks.finish()
    facts = {
        "model": model.name, "weights_hash": model.weights_hash, "inputs": list(encoded.hashes), "seed": seed,
        "n_random": n_random, "target": trial.target.describe(model.label_of, len(trial)),
        "methods": {s.name: plain(m) for s, m in zip(subjects, chosen, strict=True)},
        "metrics": {name: repr(metric) for name, metric in asked.items()}, "device": str(model.device),
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    agreement = _agreement(trial, subjects, [each[0] for each in nobodies.values()])
    return Evaluation(
        tuple(book.rows), {name: m.better for name, m in asked.items()}, book.axes, book.axis_names, agreement,
        facts, book.curves, confidence, (*encoded.notes, *trial.plan.notes),
    )  # fmt: skip


def cost(model: Model, methods: Sequence[Any], metrics: Sequence[Metric | str], n_random: int = 5) -> Passes:
    """What `evaluate` costs per input, told before it runs: forwards, and maps made anew by the methods themselves.

    The maps of the methods are not in it; each method's card says what one costs.
    """
    nobodies = (2 * n_random + 2 if model.kind == "image" else n_random + 1) if n_random else 0
    total = Passes()
    for metric in map(metric_named, metrics):
        each = metric.passes(model)
        free = Passes(each.forwards) * (nobodies if metric.of_references else 0)  # references are made for nothing
        total = total + each * len(methods) + free
    return total


def _named(metrics: list[Metric]) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for metric in metrics:
        name, number = metric.name, 2
        while name in found:
            name, number = f"{metric.name}_{number}", number + 1
        found[name] = metric
    return found


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def _some(methods: list[Method], metrics: dict[str, Metric], n_random: int) -> list[Method]:
    if not methods or not metrics:
        raise InputError("nothing to evaluate: give at least one method and one metric")
    if n_random < 0:
        raise InputError(f"n_random = {n_random}: give 0 or more")
    return methods


def _check_numbers(seed: Any, confidence: Any) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed = {seed!r}: seeds are whole numbers from 0")
    if not isinstance(confidence, (int, float)) or not 0 < confidence < 1:
        raise InputError(f"confidence = {confidence!r}: give a share between 0 and 1, such as 0.95")


def _check(model: Model, methods: list[Method], metrics: dict[str, Metric], masks: Any, n_random: int) -> None:
    for method in _some(methods, metrics, n_random):
        check_applies(model, method)
    for metric in metrics.values():
        if model.kind not in metric.applies_to:
            fitting = ", ".join(sorted(name for name, cls in METRICS.items() if model.kind in cls.applies_to))
            of_pairs = (
                " it is for pairs of prompts, attrib.pair(clean, corrupted);" if "pair" in metric.applies_to else ""
            )
            raise NotApplicable(f"{metric.name} does not apply to {model.kind} models;{of_pairs} these do: {fitting}")
        if metric.needs_mask and masks is None:
            raise InputError(f"{metric.name} needs masks: give masks= with a mask or a box for each input")


def _agreement(
    trial: Trial, subjects: list[Subject], nobodies: list[Subject]
) -> dict[tuple[str, str], tuple[float, float]]:
    """Every pair with a method in it: mean Spearman correlation and mean overlap of the top tenths, over the inputs."""
    found = {}
    for a, b in [*itertools.combinations(subjects, 2), *itertools.product(subjects, nobodies)]:
        correlation = rank_correlations(a.maps, b.maps, trial.allowed).numpy()
        overlap = top_overlaps(a.maps, b.maps, trial.allowed).numpy()
        finite = correlation[np.isfinite(correlation)]
        found[a.name, b.name] = (float(finite.mean()) if len(finite) else float("nan"), float(overlap.mean()))
    return found
