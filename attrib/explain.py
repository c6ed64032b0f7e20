"""The driver: one question, cut into chunks that fit into memory, answered by one method."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from attrib.attribution import Attribution
from attrib.doubts import doubts, sinks
from attrib.errors import NotApplicable, UnsupportedModel
from attrib.failures import is_out_of_memory, named_failures
from attrib.findings import joined, per_token
from attrib.memory import ChunkPlan, give_back
from attrib.methods import METHODS, method_named
from attrib.methods.base import Finding, Method, Question
from attrib.methods.merging import merged
from attrib.models.text import READ_AT, TextModel
from attrib.models.vision import Encoded, VisionModel
from attrib.patching.pair import EncodedPair, Pair, encode_pair
from attrib.provenance import provenance_of, reset_peak
from attrib.rows import encoded_for, rows_of, says_where
from attrib.rules.products import QuickProducts
from attrib.rules.shadow import shadow
from attrib.targets import BoundTarget, Targets, candidates

Progress = Callable[[float, str], None]


@torch.inference_mode(mode=False)  # whatever the caller is in: gradients are needed
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
        (batch, channel, height, width); for a text model a text, a list of texts, or token ids; for the
        patching methods `attrib.pair(clean, corrupted)`.
    method: a method object, or a name from `attrib.METHODS` for its default settings.
    target: None (the top prediction), an index, a label, one per input, Logit, LogitDiff, LogProb, TokenLogit, or a
        callable outputs -> (batch,) numbers. Candidates(…) of any of the others: a row of the result for each,
        those of an input one after the other.
    strict: raise UncoveredOperation where a rule table has no rule or the model cuts relevance off, instead of noting
        it in the result. It is about operations; what the numbers leave open is told by `delta` and the notes.
    max_memory: bytes that the activations of one chunk may take; default: a share of what is free.
    on_progress: called with (finished fraction, message) between chunks; what it raises stops the run.

    Nothing is left on the model, whatever happens. Raises the errors of `attrib.errors`.
    """
    method = method_named(method)
    check_applies(model, method, inputs)
    started = time.perf_counter()
    is_pair = isinstance(inputs, Pair)
    encoded = encode_pair(model, inputs, says_where(target)) if is_pair else encoded_for(model, inputs, target)
    reset_peak(model.device)
    encoded, bound = rows_of(model, encoded, target)
    finding, bound, planned = answered(
        model, method, encoded, bound, strict, max_memory, on_progress, candidates(target)
    )
    causal_words = encoded.words if getattr(model, "task", None) == "next_token" else None
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
        notes=(*encoded.notes, *planned, *finding.notes, *doubts(finding), *sinks(finding, causal_words)),
        pictures=encoded.pictures,
        token_texts=encoded.token_texts,
        words=encoded.words,
        sites=finding.sites,
        receivers=finding.receivers,
        corrupted_texts=encoded.corrupted_texts if isinstance(encoded, EncodedPair) else None,
        reduction=finding.reduction,
        signed=finding.signed,
    )


def compare(
    model: VisionModel | TextModel,
    inputs: Any,
    methods: Sequence[Method | str] | Method | str,
    target: Targets = None,
    **options: Any,
) -> dict[str, Attribution]:
    """`explain` with each of `methods`, by name; equal names get a number. Options are those of `explain`."""
    results: dict[str, Attribution] = {}
    for method in [methods] if isinstance(methods, (str, Method)) else methods:
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
    alike: int = 1,
) -> tuple[Finding, BoundTarget, tuple[str, ...]]:
    """What `method` finds for inputs that are encoded already, the target with its indices, and notes of the plan.

    alike: how many rows in a row hold the same input, with targets of their own.
    """
    shared = alike if method.shares_forward else 1
    first = encoded if shared == 1 else dataclasses.replace(encoded, x=encoded.x[:1])
    plan = ChunkPlan.of(model, method, first, max_memory)
    findings, target, plan = _answer_in_chunks(model, method, encoded, target, strict, plan, on_progress, shared)
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
    shared: int,
) -> tuple[list[Finding], BoundTarget, ChunkPlan]:
    x = encoded.x
    findings: list[Finding] = []
    settled: list[BoundTarget] = []
    start = 0
    while start < len(x):
        stop = min(len(x), start + (plan.rows if shared == 1 else shared))
        rows = slice(start, stop if shared == 1 else start + 1)  # of inputs; targets have start to stop
        extra = {name: value[start:stop] if name == READ_AT else value[rows] for name, value in encoded.extra.items()}
        twin = shadow(model.module)
        words = None if encoded.words is None else encoded.words[rows]
        ids = getattr(encoded, "token_ids", ())[rows] or None
        part = target.part(start, stop)
        question = Question(model, twin, x[rows], part, plan.rows, strict, extra, words, ids)
        if isinstance(encoded, EncodedPair) and encoded.corrupted is not None:
            question.corrupted = encoded.corrupted[rows]
        if on_progress is not None:
            question.on_progress = _within(on_progress, start / len(x), stop / len(x), method.name)
        question.on_progress(0.0)
        try:
            findings.append(_answer(method, question))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            plan = plan.halved(error, stop - start if method.single_pass else plan.rows)
        else:
            settled.append(question.target)
            start = stop
            continue
        give_back(x.device)
    if on_progress is not None:
        on_progress(1.0, method.name)
    return findings, joined(settled), plan


def _answer(method: Method, question: Question) -> Finding:
    with named_failures(question.model.name, question.twin, question.x), QuickProducts():
        if not method.single_pass and question.target.kind == "predicted":
            question.settle()
        return method.explain(question)


def _within(on_progress: Progress, low: float, high: float, message: str) -> Callable[[float], None]:
    return lambda fraction: on_progress(low + fraction * (high - low), message)


def check_applies(model: VisionModel | TextModel, method: Method, inputs: Any = None) -> None:
    """Raise NotApplicable, with the methods that do apply, where `method` cannot explain such a model or input.

    UnsupportedModel for what is not wrapped.
    """
    _check_wrapped(model)
    kind = "pair" if isinstance(inputs, Pair) else model.kind
    if kind in method.applies_to:
        return
    fitting = ", ".join(sorted(name for name, cls in METHODS.items() if kind in cls.applies_to))
    if kind == "pair":
        raise NotApplicable(f"{method.name} does not compare two prompts; these do: {fitting}")
    compares = " it compares two prompts: give attrib.pair(clean, corrupted);" if "pair" in method.applies_to else ""
    raise NotApplicable(f"{method.name} does not apply to {model.kind} models;{compares} these do: {fitting}")


def _check_wrapped(model: object) -> None:
    if not hasattr(model, "kind"):
        raise UnsupportedModel(
            f"a model that is wrapped is needed, not {type(model).__name__}; give attrib.wrap(module), "
            "attrib.wrap(module, tokenizer=…) or attrib.load(name)"
        )
