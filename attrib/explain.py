"""The driver: one question, cut into chunks that fit into memory, answered by one method."""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attrib.attribution import Attribution, Coverage, Provenance
from attrib.errors import NotApplicable
from attrib.failures import is_out_of_memory, named_failures
from attrib.memory import ChunkPlan
from attrib.methods import METHODS, method_named
from attrib.methods.base import Finding, Method, Question
from attrib.models.vision import Encoded, VisionModel
from attrib.rules.shadow import shadow
from attrib.targets import BoundTarget, Targets, bind

if TYPE_CHECKING:
    from attrib.models.text import TextModel

Progress = Callable[[float, str], None]


def explain(
    model: VisionModel | TextModel,
    inputs: Any,
    method: Method | str,
    target: Targets = None,
    *,
    strict: bool = False,
    max_memory: int | None = None,
    on_progress: Progress | None = None,
) -> Attribution:
    """Why did `model` score `target` on `inputs` as it did?

    inputs: an image path, PIL image, uint8 array, a list of those, or a preprocessed float tensor
        (batch, channel, height, width); for a text model a text, a list of texts, or token ids.
    method: a method object, or a name from `attrib.METHODS` for its default settings.
    target: None (the top prediction), an index, a label, one per input, Logit, LogitDiff, LogProb, or a
        callable outputs -> (batch,) numbers.
    strict: raise UncoveredOperation where a rule table has no rule, instead of noting it in the result.
    max_memory: bytes that the activations of one chunk may take; default: a share of what is free.
    on_progress: called with (finished fraction, message) between chunks; what it raises stops the run.

    Nothing is left on the model, whatever happens. Raises the errors of `attrib.errors`.
    """
    method = method_named(method)
    _check_applies(model, method)
    started = time.perf_counter()
    encoded = model.encode(inputs)
    _reset_peak(model.device)
    bound = bind(target, len(encoded.x), model.index_of)
    plan = ChunkPlan.of(model, method, encoded, max_memory)
    findings, bound = _answer_in_chunks(model, method, encoded, bound, strict, plan, on_progress)
    finding = merged(findings)
    if model.kind == "text":
        finding = per_token(finding)
    return Attribution(
        kind=finding.kind,
        values=finding.values,
        target=bound.describe(model.labels, len(encoded.x)),
        score=finding.score,
        delta=finding.delta,
        provenance=_provenance(model, method, encoded.hashes, time.perf_counter() - started),
        coverage=finding.coverage,
        ledger=finding.ledger,
        parts=finding.parts,
        notes=(*encoded.notes, *plan.notes, *finding.notes, *doubts(finding)),
        pictures=encoded.pictures,
        token_texts=encoded.token_texts,
        words=encoded.words,
        reduction=finding.reduction,
        signed=finding.signed,
    )


def compare(
    model: VisionModel | TextModel, inputs: Any, methods: Sequence[Method | str], target: Targets = None, **options: Any
) -> dict[str, Attribution]:
    """`explain` with each of `methods`, by name; equal names get a number. Options are those of `explain`."""
    results: dict[str, Attribution] = {}
    for method in methods:
        method = method_named(method)
        name, number = method.name, 2
        while name in results:
            name, number = f"{method.name}_{number}", number + 1
        results[name] = explain(model, inputs, method, target, **options)
    return results


def _answer_in_chunks(
    model: VisionModel | TextModel,
    method: Method,
    encoded: Encoded,
    target: BoundTarget,
    strict: bool,
    plan: ChunkPlan,
    on_progress: Progress | None,
) -> tuple[list[Finding], BoundTarget]:
    x = encoded.x
    findings: list[Finding] = []
    settled: list[BoundTarget] = []
    start = 0
    while start < len(x):
        stop = min(len(x), start + plan.rows)
        extra = {name: value[start:stop] for name, value in encoded.extra.items()}
        twin = shadow(model.module)
        question = Question(model, twin, x[start:stop], target.part(start, stop), plan.rows, strict, extra)
        if on_progress is not None:
            question.on_progress = _within(on_progress, start / len(x), stop / len(x), method.name)
        question.on_progress(0.0)
        try:
            findings.append(_answer(method, question))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            plan = plan.halved(error)
            continue
        settled.append(question.target)
        start = stop
    if on_progress is not None:
        on_progress(1.0, method.name)
    return findings, joined(settled)


def _answer(method: Method, question: Question) -> Finding:
    with named_failures(question.model.name, question.twin, question.x):
        if not method.single_pass and question.target.kind == "predicted":
            question.settle()
        return method.explain(question)


def _within(on_progress: Progress, low: float, high: float, message: str) -> Callable[[float], None]:
    return lambda fraction: on_progress(low + fraction * (high - low), message)


def per_token(finding: Finding) -> Finding:
    """Values of embeddings (batch, tokens, width) as one number a token: their sum, or length if unsigned."""
    if finding.kind != "input":
        return finding
    wide = finding.values.double()
    values = wide.sum(2) if finding.signed else wide.square().sum(2).sqrt()
    return dataclasses.replace(finding, values=values.to(finding.values.dtype), kind="tokens")


def merged(findings: list[Finding]) -> Finding:
    """One finding for the whole batch; notes are kept once, coverage is added up."""
    if len(findings) == 1:
        return findings[0]
    first = findings[0]
    return dataclasses.replace(
        first,
        values=torch.cat([f.values for f in findings]),
        score=torch.cat([f.score for f in findings]),
        delta=None if first.delta is None else torch.cat([f.delta for f in findings if f.delta is not None]),
        ledger=_joined_tables([f.ledger for f in findings]),
        parts=_joined_tables([f.parts for f in findings]),
        coverage=_added([f.coverage for f in findings if f.coverage is not None]),
        notes=tuple(dict.fromkeys(note for f in findings for note in f.notes)),
    )


def _joined_tables(tables: list[dict[str, Tensor] | None]) -> dict[str, Tensor] | None:
    full = [table for table in tables if table is not None]
    names = dict.fromkeys(name for table in full for name in table)
    return {name: torch.cat([table[name] for table in full]) for name in names} or None


def _added(coverages: list[Coverage]) -> Coverage | None:
    if not coverages:
        return None
    total = Coverage({}, {}, {})
    for coverage in coverages:
        for part in ("ruled", "linear", "uncovered"):
            counts = getattr(total, part)
            for name, count in getattr(coverage, part).items():
                counts[name] = counts.get(name, 0) + count
    return total


def joined(parts: list[BoundTarget]) -> BoundTarget:
    """The settled target of the whole batch from those of its chunks."""
    if len(parts) == 1 or parts[0].positive is None:
        return parts[0]
    positive = torch.cat([p.positive for p in parts if p.positive is not None])
    negatives = [p.negative for p in parts if p.negative is not None]
    return dataclasses.replace(parts[0], positive=positive, negative=torch.cat(negatives) if negatives else None)


def doubts(finding: Finding) -> list[str]:
    """What speaks against the numbers themselves: NaN, all zero, a score that is not accounted for."""
    found = []
    flat = finding.values.detach().flatten(1)
    broken = (~flat.isfinite()).any(1).nonzero()[:, 0].tolist()
    empty = (flat == 0).all(1).nonzero()[:, 0].tolist()
    if broken:
        found.append(f"the map of input {_listed(broken)} holds NaN or infinite values and means nothing")
    if empty:
        found.append(f"the map of input {_listed(empty)} is zero everywhere: the method found nothing")
    if finding.delta is not None:
        relative = (finding.delta.abs() / finding.score.abs().clamp_min(1e-12)).max().item()
        if relative > 0.05:
            found.append(f"the map does not account for {relative:.0%} of the score (completeness error)")
    if finding.ledger is not None:
        found += _absorbed(finding.ledger, finding.score)
    if finding.coverage is not None and finding.coverage.uncovered:
        names = ", ".join(list(finding.coverage.uncovered)[:5])
        found.append(f"no rule covers {names}: the plain gradient was used there")
    return found


def _absorbed(ledger: dict[str, Tensor], score: Tensor) -> list[str]:
    """A note where little of the score reached the input, and what took the rest."""
    share = (ledger["input"] / score.where(score != 0, torch.ones_like(score))).abs().min().item()
    if share > 0.5 or len(ledger) == 1:
        return []
    taken = max((name for name in ledger if name != "input"), key=lambda name: ledger[name].abs().sum().item())
    return [f"only {share:.2g} of the score reached the input; most was absorbed by {taken} (see the ledger)"]


def _listed(indices: list[int]) -> str:
    return ", ".join(str(i) for i in indices[:5]) + (" and others" if len(indices) > 5 else "")


def _check_applies(model: VisionModel | TextModel, method: Method) -> None:
    if model.kind not in method.applies_to:
        fitting = sorted(name for name, cls in METHODS.items() if model.kind in cls.applies_to)
        raise NotApplicable(f"{method.name} does not apply to {model.kind} models; these do: {', '.join(fitting)}")


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _provenance(model: VisionModel | TextModel, method: Method, hashes: tuple[str, ...], seconds: float) -> Provenance:
    return Provenance(
        method=method.name,
        settings=plain(method),
        model=model.name,
        weights_hash=model.weights_hash,
        input_hashes=hashes,
        versions=_versions(),
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        seed=getattr(method, "seed", None),
        seconds=seconds,
        peak_memory=_peak(model.device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def plain(value: Any) -> Any:
    """A method's settings as JSON can hold them."""
    if isinstance(value, Method):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}  # type: ignore[arg-type]
        return {"method": value.name, **fields}
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else repr(value)


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in ("attrib", "torch", "torchvision", "captum", "zennit", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
