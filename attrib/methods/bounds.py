"""The range of z-box: the pictures', carried through what a model does to them before its first layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.methods.base import Question
from attrib.models.first_layer import given_to_first
from attrib.rules.first import ZBox
from attrib.rules.shadow import shadow
from attrib.rules.table import Rule, Rules

UNKNOWN = (
    "what the model does before its first layer does not grow or fall with each pixel alone, so nobody can say what "
    "black and white become there: z-box takes the range of what that layer saw"
)
_SLACK = {torch.float16: 0.01, torch.bfloat16: 0.05}  # of the largest, for rounding; 1e-4 in wider types


def of_inputs(question: Question, lowest: Any, highest: Any) -> tuple[Tensor, Tensor]:
    """The ends of the input's range, as given or as the preprocessing has them; of samples outside these, their own.

    Raises InputError where what is given is no number and nothing that broadcasts to the input.
    """
    x = question.x
    shape = (-1, *[1] * (x.dim() - 1))
    own = x.flatten(1).amin(1).view(shape), x.flatten(1).amax(1).view(shape)
    low, high = question.model.bounds() or own
    outside = ((x < low - 1e-4) | (x > high + 1e-4)).flatten(1).any(1).view(shape)
    if bool(outside.any()):
        low = torch.where(outside, torch.minimum(low, own[0]), low)
        high = torch.where(outside, torch.maximum(high, own[1]), high)
    low = low if lowest is None else _given("low", lowest, x)
    high = high if highest is None else _given("high", highest, x)
    if bool((low > high).any()):
        raise InputError(f"low must not exceed high, got low={lowest}, high={highest}")
    return low, high


def _given(name: str, bound: Any, x: Tensor) -> Tensor:
    """A bound as the caller gave it. Raises InputError where it is no number and nothing that broadcasts to x."""
    try:
        value = torch.as_tensor(bound, dtype=None if isinstance(bound, Tensor) else x.dtype).to(x)
        fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"{name} = {bound!r} is no bound of inputs shaped {tuple(x.shape)}; give a number") from None
    if not fits or not value.isfinite().all():
        channels = tuple(x.shape[1:2]) + (1,) * (x.dim() - 2)
        raise InputError(
            f"{name} of shape {tuple(value.shape)} is no bound of inputs shaped {tuple(x.shape)}; give a number, "
            f"or one per channel, {channels}"
        )
    return value


def carried(question: Question, rules: Rules) -> tuple[Rules, tuple[str, ...]]:
    """`rules`, with the bounds of a first layer's z-box as that layer meets them, and what a reader must know of it.

    They stay where the first layer is given the input itself.
    """
    tables = (rules.table, *(table for _, table in rules.scoped))
    boxes = {box for table in tables if isinstance(box := table.get("first"), ZBox)}
    seen = _before_first(question, question.x) if boxes else None
    if seen is None or (seen.shape == question.x.shape and bool((seen == question.x).all())):
        return rules, ()
    known = {box: _ends(question, box) for box in boxes}
    own = _own(seen, len(question.x))
    moved = {box: replace(box, low=low, high=high) for box in boxes for low, high in [known[box] or own]}

    def with_moved(table: Mapping[str, Rule]) -> dict[str, Rule]:
        box = table.get("first")
        return {**table, "first": moved[box]} if isinstance(box, ZBox) else dict(table)

    scoped = tuple((pattern, with_moved(table)) for pattern, table in rules.scoped)
    notes = (UNKNOWN,) if None in known.values() else ()
    return replace(rules, table=with_moved(rules.table), scoped=scoped), notes


def _before_first(question: Question, x: Tensor) -> Tensor | None:
    # a twin of its own: a forward may count, or keep what it sees
    twin = shadow(question.model.module)
    return given_to_first(lambda x: question.model.forward(twin, x, question.extra), x)


def _ends(question: Question, box: ZBox) -> tuple[Tensor, Tensor] | None:
    """The least and the largest that the first layer is given for low ≤ x ≤ high; None where nobody can tell.

    They are those of low and high where all it is given grows, or falls, with what it depends on: of pictures that are
    normalised, cut into patches, padded, made smaller. Tried on pictures of black and white pixels and of ones between.
    """
    x = question.x
    low, high = (bound.to(x).expand_as(x) for bound in (box.low, box.high))
    first, second = _before_first(question, low), _before_first(question, high)
    if first is None or second is None or first.shape != second.shape:
        return None
    least, most = torch.minimum(first, second), torch.maximum(first, second)
    slack = _SLACK.get(x.dtype, 1e-4) * torch.maximum(most, -least).amax()
    draws = torch.rand(2, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    for share in (draws[0].round(), draws[1]):
        tried = _before_first(question, low + (high - low) * share)
        if tried is None or tried.shape != least.shape or not _within(tried, least - slack, most + slack):
            return None
    return _once(least), _once(most)


def _within(x: Tensor, low: Tensor, high: Tensor) -> bool:
    return bool(((x >= low) & (x <= high)).all())


def _once(bound: Tensor) -> Tensor:
    """One row where all are the same, which saves work."""
    return bound[:1] if bool((bound == bound[:1]).all()) else bound


def _own(seen: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """The range of what each sample became; of all together where nobody knows which is whose."""
    rows = seen.reshape(samples if len(seen) % samples == 0 else 1, -1)
    shape = (-1, *[1] * (seen.dim() - 1))
    return rows.amin(1).view(shape), rows.amax(1).view(shape)
