"""`attrib.evaluate` of methods that compare two prompts: a row for each pair."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from attrib.attribution import Attribution
from attrib.chunks import Progress
from attrib.class_sensitivity import spearman
from attrib.errors import InputError, NotApplicable, PromptPairError
from attrib.explain import check_applies, explain
from attrib.methods.base import Method
from attrib.metrics.agreement import shared_tops
from attrib.metrics.base import Metric
from attrib.metrics.evaluation import Evaluation
from attrib.metrics.patched import PatchingCorrelation
from attrib.metrics.summary import Row
from attrib.patching.pair import Pair
from attrib.provenance import plain
from attrib.targets import Targets


def evaluate_pairs(
    model: Any, inputs: Pair, methods: Sequence[Method], metrics: dict[str, Metric], target: Targets, n_random: int,
    seed: int, confidence: float, on_progress: Progress | None, **options: Any,
) -> Evaluation:  # fmt: skip
    """A row for each pair: `attrib.evaluate` of methods that compare two prompts."""
    started = time.perf_counter()
    asked = {name: _of_pairs(metric) for name, metric in metrics.items()}
    for method in methods:
        check_applies(model, method, inputs)
    targets = target if isinstance(target, (list, tuple)) else [target] * len(inputs)
    if len(targets) != len(inputs):
        raise InputError(f"{len(targets)} targets for {len(inputs)} pairs; give one, or one for each")
    names, rows, results = _names(methods), [], {}
    done, tasks = 0, len(inputs) * len(methods) * len(asked)
    for (i, own), (name, method) in itertools.product(enumerate(targets), zip(names, methods, strict=True)):
        one = Pair(inputs.clean[i : i + 1], inputs.corrupted[i : i + 1])
        result = results[name, i] = explain(model, one, method, own, **options)
        for key, metric in asked.items():
            rows.append(_row(model, one, result, own, metric, (i, name, key), n_random, seed))
            done += 1
            if on_progress is not None:
                on_progress(done / tasks, f"{key} of {name}")
    order = {key: place for place, key in enumerate(itertools.product(asked, names))}
    first = [results[names[0], i] for i in range(len(inputs))]
    facts = {
        "model": model.name, "weights_hash": model.weights_hash, "seed": seed, "n_random": n_random,
        "inputs": [name for result in first for name in result.provenance.input_hashes],
        "target": [each for result in first for each in result.target],
        "methods": {name: plain(method) for name, method in zip(names, methods, strict=True)},
        "metrics": {name: repr(metric) for name, metric in asked.items()}, "device": str(model.device),
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    return Evaluation(
        tuple(sorted(rows, key=lambda row: order[row.metric, row.method])),
        {name: metric.better for name, metric in asked.items()},
        dict.fromkeys(asked, ()), dict.fromkeys(asked, ""), _agreement(names, results, len(inputs)), facts,
        confidence=confidence, notes=tuple(dict.fromkeys(note for result in first for note in result.notes)),
    )  # fmt: skip


def _of_pairs(metric: Metric) -> PatchingCorrelation:
    if isinstance(metric, PatchingCorrelation):
        return metric
    raise NotApplicable(f"{metric.name} does not apply to pairs of prompts; this does: {PatchingCorrelation.name}")


def _names(methods: Sequence[Method]) -> list[str]:
    each = [method.name for method in methods]
    return [name if each.index(name) == i else f"{name}_{each[: i + 1].count(name)}" for i, name in enumerate(each)]


def _row(
    model: Any, one: Pair, result: Attribution, target: Any, metric: PatchingCorrelation,
    place: tuple[int, str, str], n_random: int, seed: int,
) -> Row:  # fmt: skip
    """One pair: r, and beside it that of as many random numbers."""
    i, name, key = place
    beside = {"random": math.nan} if n_random else {}
    try:
        found = metric.measured(model, one, result, target, seed)
    except PromptPairError:
        raise
    except InputError as error:  # the method found nothing
        return Row(i, name, key, math.nan, beside, str(error))
    true = np.array([entry.true for entry in found.entries])
    value = getattr(found, metric.coefficient).value
    random = np.random.default_rng((seed, 12, i))
    if n_random:
        beside["random"] = float(np.mean([_alike(random.random(len(true)), true, metric) for _ in range(n_random)]))
    return Row(i, name, key, value, beside, "" if math.isfinite(value) else "the effects do not vary")


def _alike(a: np.ndarray, b: np.ndarray, metric: PatchingCorrelation) -> float:
    if np.ptp(b) == 0:
        return math.nan
    return float(spearman(a, b) if metric.coefficient == "spearman" else np.corrcoef(a, b)[0, 1])


def _agreement(names: list[str], results: dict[Any, Attribution], n: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Every two methods with the same sites: means of Spearman's correlation and of the overlap of the top tenths."""
    found = {}
    for a, b in itertools.combinations(names, 2):
        if results[a, 0].sites == results[b, 0].sites:
            both = [[_flat(results[name, i]) for name in (a, b)] for i in range(n)]
            correlation, overlap = ([number(*each) for each in both] for number in (spearman, _shared))
            found[a, b] = (float(np.nanmean(correlation)), float(np.mean(overlap)))
    return found


def _flat(result: Attribution) -> np.ndarray:
    found: np.ndarray = result.values.cpu().double().nan_to_num().flatten().numpy()
    return found


def _shared(a: np.ndarray, b: np.ndarray) -> float:
    return shared_tops(np.abs(a), np.abs(b))
