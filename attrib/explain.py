"""The driver: one question, cut into chunks that fit into memory, answered by one method."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrib.attribution import Attribution
from attrib.doubts import doubts
from attrib.errors import NotApplicable
from attrib.failures import is_out_of_memory, named_failures
from attrib.findings import joined, merged, per_token
from attrib.memory import ChunkPlan
from attrib.methods import METHODS, method_named
from attrib.methods.base import Finding, Method, Question
from attrib.models.vision import Encoded, VisionModel
from attrib.provenance import provenance_of, reset_peak
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
    check_applies(model, method)
    started = time.perf_counter()
    encoded = model.encode(inputs)
    reset_peak(model.device)
    bound = bind(target, len(encoded.x), model.index_of)
    finding, bound, planned = answered(model, method, encoded, bound, strict, max_memory, on_progress)
    return Attribution(
        kind=finding.kind,
        values=finding.values,
        target=bound.describe(model.label_of, len(encoded.x)),
        score=finding.score,
        delta=finding.delta,
        provenance=provenance_of(model, method, encoded.hashes, time.perf_counter() - started),
        coverage=finding.coverage,
        ledger=finding.ledger,
        parts=finding.parts,
        notes=(*encoded.notes, *planned, *finding.notes, *doubts(finding)),
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


def answered(
    model: VisionModel | TextModel,
    method: Method,
    encoded: Encoded,
    target: BoundTarget,
    strict: bool = False,
    max_memory: int | None = None,
    on_progress: Progress | None = None,
) -> tuple[Finding, BoundTarget, tuple[str, ...]]:
    """What `method` finds for inputs that are encoded already, the target with its indices, and notes of the plan."""
    plan = ChunkPlan.of(model, method, encoded, max_memory)
    findings, target = _answer_in_chunks(model, method, encoded, target, strict, plan, on_progress)
    finding = merged(findings)
    return (per_token(finding) if model.kind == "text" else finding), target, plan.notes


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
        words = None if encoded.words is None else encoded.words[start:stop]
        ids = getattr(encoded, "token_ids", ())[start:stop] or None
        part = target.part(start, stop)
        question = Question(model, twin, x[start:stop], part, plan.rows, strict, extra, words, ids)
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


def check_applies(model: VisionModel | TextModel, method: Method) -> None:
    """Raise NotApplicable, with the methods that do apply, where `method` cannot explain this kind of model."""
    if model.kind not in method.applies_to:
        fitting = sorted(name for name, cls in METHODS.items() if model.kind in cls.applies_to)
        raise NotApplicable(f"{method.name} does not apply to {model.kind} models; these do: {', '.join(fitting)}")
