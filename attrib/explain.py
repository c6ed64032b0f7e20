"""The driver: what is asked of a model about inputs, answered by one method or several."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch

from attrib.attribution import Attribution
from attrib.chunks import Progress, answered
from attrib.doubts import doubts, sinks
from attrib.errors import NotApplicable, UnsupportedModel
from attrib.methods import METHODS, method_named
from attrib.methods.base import Finding, Method
from attrib.models.encoded import Encoded
from attrib.models.text import TextModel
from attrib.models.vision import VisionModel
from attrib.patching.pair import EncodedPair, Pair, encode_pair
from attrib.provenance import Provenance, provenance_of, reset_peak
from attrib.rows import encoded_for, rows_of, says_where
from attrib.targets import Targets, candidates


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
    provenance = provenance_of(model, method, encoded.hashes, time.perf_counter() - started)
    described = bound.describe(model.label_of, len(encoded.x))
    causal_words = encoded.words if getattr(model, "task", None) == "next_token" else None
    notes = (*encoded.notes, *planned, *finding.notes, *doubts(finding), *sinks(finding, causal_words))
    return _result(finding, encoded, described, provenance, notes)


def _result(
    finding: Finding,
    encoded: Encoded,
    target: list[dict[str, Any]],
    provenance: Provenance,
    notes: tuple[str, ...],
) -> Attribution:
    return Attribution(
        kind=finding.kind,
        values=finding.values,
        target=target,
        score=finding.score,
        delta=finding.delta,
        provenance=provenance,
        coverage=finding.coverage,
        ledger=finding.ledger,
        parts=finding.parts,
        notes=notes,
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
    methods: Iterable[Method | str] | Method | str,
    target: Targets = None,
    **options: Any,
) -> dict[str, Attribution]:
    """`explain` with each of `methods`: name → result; of equal names the later ones get a number, "lrp_2".

    options: those of `explain`, whose errors this raises.
    """
    results: dict[str, Attribution] = {}
    for method in methods if isinstance(methods, Iterable) and not isinstance(methods, str) else [methods]:
        method = method_named(method)
        name, number = method.name, 2
        while name in results:
            name, number = f"{method.name}_{number}", number + 1
        results[name] = explain(model, inputs, method, target, **options)
    return results


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
