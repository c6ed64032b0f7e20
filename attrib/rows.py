"""What is asked, as rows: every input once, or once for each candidate, and where its output is read."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from attrib.binding import BoundTarget, bind
from attrib.errors import TargetError
from attrib.models.encoded import Encoded
from attrib.models.text import READ_AT, TextModel
from attrib.targets import Targets, candidates, positions

if TYPE_CHECKING:
    from attrib.models.vision import VisionModel


def encoded_for(model: VisionModel | TextModel, inputs: Any, target: Targets) -> Encoded:
    """`inputs` as the model takes them; a masked model needs no mask where the target says where to read."""
    if isinstance(model, TextModel) and says_where(target):
        return model.encode(inputs, anywhere=True)
    return model.encode(inputs)


def says_where(target: Targets) -> bool:
    """Whether the target says at which position the output is read, for every input."""
    places = positions(target)
    return places is not None and None not in places


def rows_of(model: VisionModel | TextModel, encoded: Encoded, target: Targets) -> tuple[Encoded, BoundTarget]:
    """(a row for each input and candidate, the target of each row). Raises TargetError for what does not fit."""
    several, inputs = candidates(target), len(encoded.x)
    bound, places = bind(target, inputs, model.index_of), positions(target)
    bound = dataclasses.replace(bound, labels=None if model.labels is None else len(model.labels))
    if several > 1:
        encoded = _repeated(encoded, several)
    if places is None:
        return encoded, bound
    of_rows = places * inputs if several > 1 or len(places) == 1 else places
    return _read_at(model, encoded, of_rows), dataclasses.replace(bound, places=tuple(of_rows))


def _repeated(encoded: Encoded, times: int) -> Encoded:
    """Every input `times` times, one after the other."""
    changed: dict[str, Any] = {
        "extra": {name: value.repeat_interleave(times, 0) for name, value in encoded.extra.items()}
    }
    for name in ("x", "pictures", "hashes", "token_texts", "words", "token_ids", "corrupted", "corrupted_texts"):
        value = getattr(encoded, name, None)
        if isinstance(value, tuple):
            changed[name] = tuple(item for item in value for _ in range(times))
        elif value is not None:
            changed[name] = (
                value.repeat_interleave(times, 0) if isinstance(value, torch.Tensor) else value.repeat(times, 0)
            )
    return dataclasses.replace(encoded, **changed)


def _read_at(model: VisionModel | TextModel, encoded: Encoded, places: Sequence[int | None]) -> Encoded:
    if READ_AT not in encoded.extra:
        raise TargetError(f"{model.name} has no output per token, so no position of it can be explained; leave it out")
    read = encoded.extra[READ_AT].clone()
    for row, (place, texts) in enumerate(zip(places, encoded.token_texts or (), strict=True)):
        if place is None:
            continue
        try:
            place = operator.index(place)
        except TypeError:
            raise TargetError(f"position {place!r} is no whole number; tokens are counted from 0, or from −1") from None
        if not -len(texts) <= place < len(texts):
            raise TargetError(
                f"position {place} is out of range: the input has {len(texts)} tokens, 0 to {len(texts) - 1}"
            )
        read[row] = place % len(texts)
    return dataclasses.replace(encoded, extra=encoded.extra | {READ_AT: read})
