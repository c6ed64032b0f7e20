"""One method on one question: the target alone, what speaks for it rather than for another, or a continuation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import attrib
from app.questions import Ask, settled

ASCENT = "excitation_pullback"  # its steps > 0 give a changed photo to compare with the original
_LABELS = (("index", "label"), ("versus", "versus_label"))


@dataclass(frozen=True)
class Found:
    """What one method found. slider: the photo before and after an ascent. subtracted: the map is one minus another."""

    result: attrib.Attribution
    slider: tuple[Any, Any] | None = None
    subtracted: bool = False


def one(model: Any, ask: Ask, method: Any, on_progress: Any) -> Found:
    """Raises attrib's errors, and attrib.Cancelled out of on_progress."""
    if ask.new_tokens:
        return Found(_named(model, ask, _continued(model, ask, method, on_progress)))
    if ask.versus is not None and ask.versus_by == "maps":
        return _subtracted(model, ask, method, on_progress)
    target = ask.target if ask.versus is None else attrib.LogitDiff(settled(model, ask), ask.versus)
    result = attrib.explain(model, ask.given, method, target, on_progress=on_progress)
    if ask.versus is not None and ask.kind == "image" and not result.signed:
        # how strongly the difference depends on a pixel does not tell for which class it speaks
        return _subtracted(model, ask, method, on_progress)
    return Found(_named(model, ask, result), _slider(model, ask, method, result))


def _subtracted(model: Any, ask: Ask, method: Any, on_progress: Any) -> Found:
    halves = []
    for start, target in ((0.0, settled(model, ask)), (0.5, ask.versus)):

        def half(fraction: float, message: str = "", start: float = start) -> None:
            on_progress(start + fraction / 2, message)

        halves.append(attrib.explain(model, ask.given, method, target, on_progress=half))
    return Found(difference(*halves), subtracted=True)


def _continued(model: Any, ask: Ask, method: Any, on_progress: Any) -> attrib.Attribution:
    """A row for each generated token; with `versus`, what speaks for it rather than for that token."""
    versus = ask.versus
    target = None if versus is None else lambda token: attrib.LogitDiff(token, versus)
    continuation = ask.continuation
    if continuation:
        continuation = model.tokenizer.encode(continuation, add_special_tokens=False)[: ask.new_tokens]
    return attrib.explain_generation(
        model, ask.given, method, continuation or None, max_new_tokens=ask.new_tokens, target=target,
        on_progress=on_progress,
    )  # fmt: skip


def _named(model: Any, ask: Ask, result: attrib.Attribution) -> attrib.Attribution:
    """A language model has no list of labels: its targets are called as their tokens read."""
    if ask.kind != "text":
        return result
    named = [
        {**{name: model.label_of(target[key]) for key, name in _LABELS if key in target}, **target}
        for target in result.target
    ]
    return replace(result, target=named)


def difference(first: attrib.Attribution, second: attrib.Attribution) -> attrib.Attribution:
    """The signed map (first − second), each divided by the sum of its magnitudes, so that neither drowns the other."""
    maps = []
    for attribution in (first, second):
        heatmap = attribution.heatmap()
        maps.append(heatmap / max(float(abs(heatmap).sum()), 1e-12))
    target = dict(first.target[0], versus=second.target[0].get("index"), versus_label=second.target[0].get("label"))
    note = "Difference of two maps, each divided by the sum of its magnitudes; it adds up to nothing in particular."
    return replace(
        first,
        kind="layer",
        values=first.values.new_tensor(maps[0] - maps[1]),
        target=[{k: v for k, v in target.items() if v is not None}],
        score=first.score - second.score,
        delta=None,
        ledger=None,
        parts=None,
        signed=True,
        notes=(note, *dict.fromkeys((*first.notes, *second.notes))),
        provenance=replace(first.provenance, seconds=first.provenance.seconds + second.provenance.seconds),
    )


def _slider(model: Any, ask: Ask, method: Any, result: attrib.Attribution) -> tuple[Any, Any] | None:
    if ask.kind != "image" or method.name != ASCENT or not getattr(method, "steps", 0) or result.pictures is None:
        return None
    changed = model.encode(ask.photo).x.cpu() + result.values.cpu()
    return result.pictures[0], model.preprocessing.inverse(changed)[0]
