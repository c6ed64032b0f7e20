"""Prompt pairs drawn as words, and what becomes of them in a model's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attrib.errors import PromptPairError

if TYPE_CHECKING:
    from attrib.models.text import TextModel


@dataclass(frozen=True)
class Draft:
    """One drawn pair in words. whole: each answer must be one token (else its first token stands for it).

    order: what pairs must share beside their token positions to mean the same.
    """

    clean: str
    corrupted: str
    answer: str
    wrong: str
    order: str = ""
    whole: bool = True


def in_tokens(model: TextModel, draft: Draft) -> tuple[tuple[object, ...], int, int] | None:
    """(what the pair's tokens are like, answer, wrong answer); None where prompts or answers are not alike."""
    clean, corrupted = (ids_of(model, text + ending(model)) for text in (draft.clean, draft.corrupted))
    if len(clean) != len(corrupted) or model.tokenizer.unk_token_id in (*clean, *corrupted):
        return None
    differing = tuple(i for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b)
    tokens = [_token_after(model, draft, clean, word) for word in (draft.answer, draft.wrong)]
    if tokens[0] is None or tokens[1] is None or tokens[0] == tokens[1] or not differing:
        return None
    names = tuple(clean.index(token) for token in tokens if token in clean)
    return (len(clean), differing, names), tokens[0], tokens[1]


def _token_after(model: TextModel, draft: Draft, prompt: tuple[int, ...], word: str) -> int | None:
    """The token that `word` is where the prompt goes on; its first one if it need not be whole."""
    space = "" if draft.clean[-1:].isdigit() else " "
    if model.task == "masked":
        place = prompt.index(model.tokenizer.mask_token_id)
        ids = ids_of(model, draft.clean + space + word + ".")
        return ids[place] if ids[:place] == prompt[:place] and (len(ids) == len(prompt) or not draft.whole) else None
    ids = ids_of(model, draft.clean + space + word)
    if ids[: len(prompt)] != prompt or len(ids) == len(prompt) or (draft.whole and len(ids) != len(prompt) + 1):
        return None
    return ids[len(prompt)]


def ending(model: TextModel) -> str:
    """What follows the prompt: nothing, or the mask of a masked language model."""
    return f" {model.tokenizer.mask_token}." if model.task == "masked" else ""


def ids_of(model: TextModel, text: str) -> tuple[int, ...]:
    """The text's tokens. Raises PromptPairError where there are none."""
    ids = tuple(model.tokenizer(text, verbose=False)["input_ids"])
    if not ids:
        raise PromptPairError(f"{text!r} becomes no tokens")
    return ids
