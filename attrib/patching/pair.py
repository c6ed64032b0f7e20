"""A clean and a corrupted prompt, token for token: the input of every patching method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attrib.errors import AttribError, NotApplicable, PromptPairError
from attrib.models.encoded import EncodedText
from attrib.models.hashing import hash_of
from attrib.models.vision import VisionModel

if TYPE_CHECKING:
    from attrib.models.text import TextModel

_SHOWN = 48  # tokens of an alignment


@dataclass(frozen=True)
class Pair:
    """Prompts and their corrupted counterparts, one by one: texts, or token ids."""

    clean: tuple[str | tuple[int, ...], ...]
    corrupted: tuple[str | tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.clean)


@dataclass(frozen=True, eq=False)
class EncodedPair(EncodedText):
    """The clean prompts as the model takes them, and beside them x and token_texts of the corrupted ones."""

    corrupted: Tensor | None = None
    corrupted_texts: tuple[tuple[str, ...], ...] | None = None


def pair(clean: Any, corrupted: Any) -> Pair:
    """Two prompts that differ in what is to be found, or two lists of as many prompts: texts, or token ids.

    clean: what makes the model give the right answer. corrupted: the same with the decisive words exchanged; both
    must have as many tokens, so that position i of one can be put into position i of the other.
    Raises PromptPairError for lists of different length; token by token they are compared once a model is known.
    """
    first, second = _prompts(clean, "clean"), _prompts(corrupted, "corrupted")
    if len(first) != len(second):
        raise PromptPairError(f"{len(first)} clean prompts and {len(second)} corrupted ones; give one for each")
    return Pair(first, second)


def encode_pair(model: TextModel | VisionModel, given: Pair, anywhere: bool = False) -> EncodedPair:
    """Both prompts as the model takes them. anywhere: a masked model's need no mask.

    Raises PromptPairError where a prompt and its counterpart have different numbers of tokens, or masks elsewhere.
    """
    if isinstance(model, VisionModel):
        raise NotApplicable(f"pairs of prompts are for text models; {model.name} takes {model.kind}s")
    clean, corrupted = (
        _encoded(model, prompts, which, anywhere)
        for prompts, which in ((given.clean, "clean"), (given.corrupted, "corrupted"))
    )
    for i in range(len(given)):
        _check_aligned(i, clean, corrupted)
    _check_same_reading(clean, corrupted)
    equal = [i for i in range(len(given)) if clean.token_ids[i] == corrupted.token_ids[i]]
    alike = (f"the prompts of pair {_listed(equal)} are identical: all their effects are zero",) if equal else ()
    encoded = {field.name: getattr(clean, field.name) for field in fields(clean)}
    encoded["hashes"] = tuple(_hash(*ids) for ids in zip(clean.token_ids, corrupted.token_ids, strict=True))
    encoded["notes"] = tuple(dict.fromkeys((*clean.notes, *corrupted.notes, *alike)))
    return EncodedPair(**encoded, corrupted=corrupted.x, corrupted_texts=corrupted.token_texts)


def aligned(clean: Sequence[str], corrupted: Sequence[str]) -> str:
    """Two rows of tokens under each other, what one has more than the other left out there, differences marked ^."""
    first, second = _visible(clean), _visible(corrupted)
    rows: tuple[list[str], list[str]] = ([], [])
    for _, a, b, c, d in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        for row, span in zip(rows, (first[a:b], second[c:d]), strict=True):
            row += [*span, *[""] * (max(b - a, d - c) - len(span))]
    widths = [max(len(a), len(b)) for a, b in zip(*rows, strict=True)]
    marks = ["" if a == b else "^" * width for a, b, width in zip(*rows, widths, strict=True)]
    names = ("clean", "corrupted", "")
    lines = (" ".join(map(str.ljust, row[:_SHOWN], widths)).rstrip() for row in (*rows, marks))
    return "\n".join(f"{name:<10}{line}" for name, line in zip(names, lines, strict=True))


def _prompts(given: Any, which: str) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        return (given,)
    rows = given.tolist() if isinstance(given, Tensor) else given
    if not isinstance(rows, (list, tuple)) or not rows:
        raise PromptPairError(
            f"the {which} prompt is {'empty' if rows == [] or rows == () else type(given).__name__}; "
            "give a text, a list of texts, or token ids"
        )
    if all(isinstance(item, int) for item in rows):
        return (tuple(rows),)
    return tuple(item if isinstance(item, str) else _ids(item, which) for item in rows)


def _ids(item: Any, which: str) -> tuple[int, ...]:
    row = item.tolist() if isinstance(item, Tensor) else item
    if not isinstance(row, (list, tuple)) or not all(isinstance(token, int) for token in row):
        raise PromptPairError(f"a {which} prompt is of type {type(item).__name__}; give a text or a list of token ids")
    return tuple(row)


def _encoded(model: TextModel, prompts: Sequence[Any], which: str, anywhere: bool) -> EncodedText:
    try:
        return model.encode(list(prompts), anywhere=anywhere)
    except PromptPairError:
        raise
    except AttribError as error:
        raise type(error)(f"of the {which} prompts, {error}") from error


def _check_aligned(index: int, clean: EncodedText, corrupted: EncodedText) -> None:
    lengths = len(clean.token_ids[index]), len(corrupted.token_ids[index])
    if lengths[0] == lengths[1] or clean.token_texts is None or corrupted.token_texts is None:
        return
    shown = aligned(clean.token_texts[index], corrupted.token_texts[index])
    raise PromptPairError(
        f"the prompts of pair {index} have {lengths[0]} and {lengths[1]} tokens; patching needs as many, position by "
        "position. Use names and words that are as many tokens in both (attrib.tasks makes such pairs; "
        f"attrib.tasks.padded(model, clean, corrupted) lengthens the shorter one):\n{shown}"
    )


def _check_same_reading(clean: EncodedText, corrupted: EncodedText) -> None:
    """Both runs share attention mask, segments and the position that is read."""
    for name in {*clean.extra, *corrupted.extra}:
        first, second = clean.extra.get(name), corrupted.extra.get(name)
        if first is None or second is None or not torch.equal(first, second):
            what = "the mask token at another place" if name == "read_at" else f"another {name}"
            raise PromptPairError(f"a corrupted prompt has {what} than its clean one; they must agree")


def _hash(clean: Sequence[int], corrupted: Sequence[int]) -> str:
    return hash_of({"clean token ids": torch.tensor(clean), "corrupted token ids": torch.tensor(corrupted)})


def _visible(tokens: Sequence[str]) -> list[str]:
    """Tokens as they can be printed under each other."""
    return ["".join(c if c.isprintable() and c != " " else "·" for c in token) or "∅" for token in tokens]


def _listed(indices: Sequence[int]) -> str:
    return ", ".join(str(i) for i in indices[:5]) + (" and others" if len(indices) > 5 else "")
