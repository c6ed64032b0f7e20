"""Does a report tell the truth? Rows computed again from what the report holds, and compared."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attrib.attribution import Attribution
from attrib.errors import AttribError, ReportError
from attrib.explain import explain
from attrib.models import load
from attrib.provenance import versions
from attrib.reports.asked import asked
from attrib.reports.batches import Model, told
from attrib.reports.evidence import Measurement, difference, measured
from attrib.reports.reading import one_map, own_values
from attrib.reports.spec import Spec, spec_of
from attrib.reports.store import Row, Store
from attrib.targets import Logit

# of the largest |value| of a map, and of |score|: what another batch size, and no more, may change in float32
TOLERANCE = 1e-3
EVIDENCE_TOLERANCE = 0.02  # two pixels that change places by rounding move a curve a little


@dataclass(frozen=True)
class Check:
    """One row computed again.

    score, values: by how much the score and the map differ, as a share of |score| and of the map's largest |value|;
    None where it could not be computed. problem: what is wrong with it, None: nothing.
    """

    row: Row
    score: float | None
    values: float | None
    problem: str | None

    @property
    def same(self) -> bool:
        return self.problem is None


@dataclass(frozen=True)
class Verdict:
    """What was found. reasons: what has changed since the report was made, and so may explain the differences."""

    checks: tuple[Check, ...]
    reasons: tuple[str, ...]
    rows: int

    @property
    def differing(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.same)


def verify(
    folder: str | Path,
    sample: int | None = 20,
    *,
    seed: int = 0,
    device: str | None = None,
    own_models: dict[str, Model] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Compute `sample` rows of the report again, each input alone, and compare (None: all rows that have a result).

    Inputs are taken from the report itself: the texts, and the pictures as the models saw them; the rows come from
    results.parquet, the maps from values/. device: where to compute; default: where the report was made.
    """
    tell = on_progress or (lambda done, total: None)
    with closing(Store.open(folder)) as store:
        if not store.manifest["finished"]:
            raise ReportError(f"the report in {str(folder)!r} is not finished; run its command again first")
        spec = spec_of(store.manifest["spec"])
        chosen, total = _sample(store, sample, seed)
        models: dict[str, Model] = dict(own_models or {})
        for name in {row.model for row, _ in chosen} - models.keys():
            models[name] = load(name, device=device or spec.device)
        checks: list[Check] = []
        for row, written in chosen:
            tell(len(checks), len(chosen))
            checks.append(_check(store, spec, models[row.model], row, written))
        tell(len(checks), len(chosen))
        return Verdict(tuple(checks), tuple(_reasons(store, models)), total)


def _sample(store: Store, sample: int | None, seed: int) -> tuple[list[tuple[Row, dict[str, Any]]], int]:
    """(rows with what results.parquet says of them, number of rows): each as likely as any other, one pass over all."""
    generator = random.Random(seed)
    kept: list[tuple[Row, dict[str, Any]]] = []
    total = sound = 0
    for row, written in zip(store.rows(), _written(store), strict=False):
        total += 1
        if row.failed:
            continue
        sound += 1
        if sample is None or len(kept) < sample:
            kept.append((row, written))
        elif (place := generator.randrange(sound)) < sample:
            kept[place] = (row, written)
    if total != store.manifest["counts"]["rows"]:
        raise ReportError(f"results.parquet has {total} rows; the manifest says {store.manifest['counts']['rows']}")
    return sorted(kept, key=lambda pair: (pair[0].position, pair[0].model, pair[0].method, pair[0].target)), total


def _written(store: Store) -> Iterator[dict[str, Any]]:
    from attrib.reports import export  # deferred: takes a while to import

    try:
        yield from export.read(store.folder)
    except (OSError, ValueError) as error:
        raise ReportError(f"cannot read results.parquet: {error}") from error


def _check(store: Store, spec: Spec, model: Model, row: Row, written: dict[str, Any]) -> Check:
    if (written["item"], written["model"], written["method"], written["target"]) != row.key:
        return Check(row, None, None, "results.parquet holds another row in its place")
    try:
        stored = store.tensors(row)["values"]
        result, evidence = _again(store, spec, model, row)
    except (AttribError, KeyError) as error:
        return Check(row, None, None, f"it could not be computed again: {told(error)}")
    score = abs(float(result.score[0]) - written["score"]) / max(abs(written["score"]), 1e-12)
    values = _distance(own_values(result, 0)["values"], stored)
    problems = []
    if values is None:
        problems.append(f"the map has shape {tuple(result.values.shape[1:])}, not {tuple(stored.shape)}")
    elif not values <= TOLERANCE:
        problems.append(f"the map differs by {values:.2g} of its largest value")
    if not score <= TOLERANCE:
        problems.append(f"the score is {float(result.score[0]):.6g}, not {written['score']:.6g}")
    if evidence and (changed := difference(evidence, row.evidence, EVIDENCE_TOLERANCE)):
        problems.append(changed)
    if result.provenance.input_hashes[0] != row.input_hash:
        problems.append("the picture or text is not the one that was explained")
    return Check(row, score, values, "; ".join(problems) or None)


def _again(store: Store, spec: Spec, model: Model, row: Row) -> tuple[Attribution, dict[str, Any]]:
    """The row's result, and what the spec wants measured of it."""
    question = asked(row.target, None) or Logit(row.target_index if row.target_index is not None else -1)
    picture = store.picture(row)
    inputs: Any = row.text
    if picture is not None:
        inputs = model.preprocessing.normalised(picture[None])  # type: ignore[union-attr]  # pictures are of vision models
    method = spec.methods[row.method]
    result = explain(model, inputs, method, question)
    found = [Measurement()]
    if spec.evidence:
        found = measured(spec.evidence, model, inputs, result, method, [question], None)
    return (result if spec.values == "raw" else one_map(result)), found[0].document


def _distance(now: Tensor, before: Tensor) -> float | None:
    """The largest difference as a share of the largest |value|; None where the shapes differ."""
    if now.shape != before.shape:
        return None
    now, before = now.cpu(), before.cpu()
    if torch.equal(now, before) or not before.numel():
        return 0.0
    largest = float(before.double().abs().max())
    return float((now.double() - before.double()).abs().max()) / max(largest, 1e-30)


def _reasons(store: Store, models: dict[str, Model]) -> list[str]:
    found = []
    for about in store.manifest["models"]:
        model = models.get(about["name"])
        if model is None:
            continue
        if model.weights_hash != about["weights_hash"]:
            now, before = model.weights_hash[:12], about["weights_hash"][:12]
            found.append(f"{about['name']} has other weights: {now}…, the report {before}…")
        for name, now in (("device", str(model.device)), ("dtype", str(model.dtype).removeprefix("torch."))):
            if now != about[name]:
                found.append(f"{about['name']} has another {name}: {now}, the report {about[name]}")
    now_versions = versions()
    for name, version in store.manifest["versions"].items():
        if now_versions.get(name) != version:
            found.append(f"another version of {name}: {now_versions.get(name)}, the report {version}")
    return found
