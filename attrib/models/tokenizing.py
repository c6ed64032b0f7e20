"""What a caller may give as text, as token ids with how they read; and what is refused, with the reason."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from attrib.errors import InputError
from attrib.models.tokens import Reading, read_ids, read_text, special_ids

_SHOWN = 20  # characters
_WANTED = "give a text, a list of texts, or token ids (a list of ints, or an integer tensor)"


@dataclass(frozen=True)
class Tokens:
    """One input. types: the segment of each token, for models that take it."""

    ids: tuple[int, ...]
    types: tuple[int, ...]
    reading: Reading
    notes: tuple[str, ...] = ()


def tokens_of(tokenizer: Any, inputs: Any, window: int | None, vocabulary: int, name: str) -> list[Tokens]:
    """One Tokens per input. Raises InputError for what cannot be explained; never cuts anything off."""
    rows = _rows(inputs)
    found = []
    for i, row in enumerate(rows):
        if isinstance(row, str):
            encoded = _encoded(tokenizer, row, i)
            _check_window(len(encoded["input_ids"]), window, i, name)  # before tokens are read, which takes longer
            tokens = _of_text(tokenizer, row, encoded, i)
        else:
            tokens = _of_ids(tokenizer, row, vocabulary, i, name)
            _check_window(len(tokens.ids), window, i, name)
        if max(tokens.ids) >= vocabulary:
            raise InputError(f"input {i} becomes token {max(tokens.ids)}, but {name} has only {vocabulary} tokens")
        found.append(tokens)
    return found


def _check_window(length: int, window: int | None, index: int, name: str) -> None:
    if window is not None and length > window:
        raise InputError(
            f"input {index} has {length} tokens, more than the {window} that {name} can take; shorten it, or "
            "explain parts of it (nothing is cut off silently)"
        )


def _rows(inputs: Any) -> list[Any]:
    """Inputs one by one: a str or a list of ints each."""
    if isinstance(inputs, str):
        return [inputs]
    if isinstance(inputs, (Tensor, np.ndarray)):
        inputs = _plain(inputs)
    if not isinstance(inputs, (list, tuple)):
        raise InputError(f"{type(inputs).__name__} cannot be read as text; {_WANTED}")
    if not inputs:
        raise InputError(f"there is no input; {_WANTED}")
    if all(_is_int(item) for item in inputs):
        return [[operator.index(item) for item in inputs]]
    rows: list[Any] = []
    for i, item in enumerate(inputs):
        item = _plain(item) if isinstance(item, (Tensor, np.ndarray)) else item
        ids = isinstance(item, (list, tuple)) and all(_is_int(part) for part in item)
        if not isinstance(item, str) and not ids:
            raise InputError(f"input {i} is of type {type(item).__name__}, which is no text; {_WANTED}")
        rows.append(item if isinstance(item, str) else [operator.index(part) for part in item])
    return rows


def _plain(ids: Tensor | np.ndarray) -> list[Any]:
    whole = not (ids.is_floating_point() or ids.is_complex()) if isinstance(ids, Tensor) else ids.dtype.kind in "iu"
    if not whole or ids.ndim not in (1, 2):
        raise InputError(
            f"token ids are whole numbers of shape (tokens) or (batch, tokens), not {ids.dtype} {tuple(ids.shape)}; "
            "give a text, a list of texts, or such ids"
        )
    found: list[Any] = ids.tolist()
    return found


def _is_int(value: Any) -> bool:
    if isinstance(value, (bool, str)):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _encoded(tokenizer: Any, text: str, index: int) -> Any:
    _check_text(text, index)
    with_offsets = {"return_offsets_mapping": True} if getattr(tokenizer, "is_fast", False) else {}
    return tokenizer(text, truncation=False, padding=False, verbose=False, **with_offsets)


def _of_text(tokenizer: Any, text: str, encoded: Any, index: int) -> Tokens:
    if "offset_mapping" in encoded:
        reading = read_text(tokenizer, text, encoded["input_ids"], encoded["offset_mapping"])
    else:
        reading = read_ids(tokenizer, encoded["input_ids"])
    ids = tuple(encoded["input_ids"])
    if special_ids(tokenizer).issuperset(ids):
        raise InputError(
            f"input {index} holds only special tokens, or characters that the tokenizer drops ({text[:40]!r}); "
            "there is nothing to explain in it"
        )
    types = tuple(encoded.get("token_type_ids") or [0] * len(ids))
    return Tokens(ids, types, reading, _unknown(tokenizer, ids, reading, index))


def _unknown(tokenizer: Any, ids: Sequence[int], reading: Reading, index: int) -> tuple[str, ...]:
    """What the tokenizer has no token for, so that the model cannot tell it from anything else unknown."""
    token = getattr(tokenizer, "unk_token", None)
    texts = [text for i, text in zip(ids, reading.texts, strict=True) if i == tokenizer.unk_token_id and text != token]
    if token is None or not texts:
        return ()
    shown = ", ".join(repr(text[:_SHOWN]) for text in dict.fromkeys(texts[:3]))
    return (f"{len(texts)} of {len(ids)} tokens of input {index} are unknown to the model ({shown}): it reads {token}",)


def _check_text(text: str, index: int) -> None:
    if not text:
        raise InputError(f"input {index} is an empty text")
    if not text.strip():
        raise InputError(f"input {index} holds nothing but white space")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"input {index} is no valid text: character {error.start} is half of a surrogate pair "
            f"(U+{ord(text[error.start]):04X}); decode the text again, for example with errors='replace'"
        ) from error


def _of_ids(tokenizer: Any, ids: Sequence[int], vocabulary: int, index: int, name: str) -> Tokens:
    if not ids:
        raise InputError(f"input {index} holds no token ids")
    wrong = [token for token in ids if not 0 <= token < vocabulary]
    if wrong:
        raise InputError(f"input {index} holds the token id {wrong[0]}; {name} has the ids 0 to {vocabulary - 1}")
    ids, notes = _without_padding(tokenizer, ids, index)
    if special_ids(tokenizer).issuperset(ids):
        raise InputError(f"input {index} holds only special tokens; there is nothing to explain in it")
    return Tokens(tuple(ids), (0,) * len(ids), read_ids(tokenizer, ids), notes)


def _without_padding(tokenizer: Any, ids: Sequence[int], index: int) -> tuple[Sequence[int], tuple[str, ...]]:
    """Without the padding at the end; a token that also ends texts stays."""
    padding = getattr(tokenizer, "pad_token_id", None)
    if padding is None or padding == getattr(tokenizer, "eos_token_id", None):
        return ids, ()
    length = len(ids)
    while length > 1 and ids[length - 1] == padding:
        length -= 1
    cut = len(ids) - length
    return ids[:length], (f"{cut} padding tokens at the end of input {index} were left out",) if cut else ()
