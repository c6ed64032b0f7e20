"""Which token of a vocabulary a text names."""

from __future__ import annotations

from typing import Any

from attrib.errors import TargetError
from attrib.models.token_bytes import entries_named
from attrib.models.tokens import token_text


def token_called(tokenizer: Any, text: str, model: str) -> int:
    """The id of the one token that `text` is; raises TargetError with the tokens that it becomes.

    A piece may be named as the vocabulary has it, "##ing", or as it is shown, ‹E2 80›.
    """
    pieces = _pieces(tokenizer, text)
    if len(pieces) == 1:
        return pieces[0]
    vocabulary = tokenizer.get_vocab()
    for entry in (text, *entries_named(text)):
        if entry in vocabulary:
            return int(vocabulary[entry])
    other = text[1:] if text.startswith(" ") else f" {text}"
    hint = "; give a text that is one, or a token's id"
    if len(_pieces(tokenizer, other)) == 1:
        how = "without" if text.startswith(" ") else "with"
        hint = f"; {other!r}, {how} the leading space, is one"
    if not pieces:
        raise TargetError(f"{text!r} is not one token of {model}: its tokenizer has none for it{hint}")
    shown = ", ".join(repr(token_text(tokenizer, piece)) for piece in pieces)
    raise TargetError(f"{text!r} is not one token of {model}: it becomes {shown}{hint}")


def _pieces(tokenizer: Any, text: str) -> list[int]:
    """The tokens of `text`; none where it is not known."""
    try:
        pieces = list(tokenizer.encode(text, add_special_tokens=False)) if text else []
    except (UnicodeError, TypeError):
        return []
    unknown = getattr(tokenizer, "unk_token_id", None)
    unreadable = unknown in pieces and text != tokenizer.unk_token
    return [] if unreadable else pieces
