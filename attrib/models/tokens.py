"""How tokens read: which characters each one stands for, and which tokens belong to one word.

A token's text is the piece of the given text that it covers, so that the texts of a word's tokens put together are the
word, in every script. A character that is split over several tokens (an emoji over four bytes) is the text of the first
of them; the text of the others is empty. Bytes that make no character are written out. Leading spaces belong to the
token whose vocabulary entry has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attrib.models.token_bytes import bytes_of, shown
from attrib.models.words import kind_of, words_of

_SPACES = ("Ġ", "▁", "Ċ", "ĉ", " ", "\n", "\t")  # how vocabularies begin an entry with white space
_BROKEN = "\ufffd"
_DECODED_AT_ONCE = 8


@dataclass(frozen=True)
class Reading:
    """How the tokens of one input read.

    texts: one per token. words: the index of each token's word, None for special tokens and white space.
    """

    texts: tuple[str, ...]
    words: tuple[int | None, ...]


def read_text(tokenizer: Any, text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> Reading:
    """The reading of a text's tokens, from the offsets that a fast tokenizer gives."""
    raw, special = tokenizer.convert_ids_to_tokens(list(ids)), special_ids(tokenizer)
    spans: list[tuple[int, int] | None] = []
    end = 0
    for i, (entry, (start, stop)) in enumerate(zip(raw, offsets, strict=True)):
        if ids[i] in special:
            spans.append(None)
            end = max(end, stop)
            continue
        if start == stop and not _is_white(entry):
            spans.append((end, end))  # the rest of a character that an earlier token has
            continue
        if start == stop:  # white space that the offsets leave out
            start, stop = end, end + _white_length(text[end:], len(str(entry)))
        if start > end and text[end:start].isspace() and str(entry).startswith(_SPACES):
            start = end
        stop = _with_marks(text, max(stop, start), _next_start(offsets, i, stop, len(text)))
        spans.append((min(max(start, end), stop), stop))
        end = max(end, stop)
    return _reading(text, spans, raw)


def read_ids(tokenizer: Any, ids: Sequence[int]) -> Reading:
    """The reading of tokens without a text: what each adds when they are decoded in order."""
    raw = tokenizer.convert_ids_to_tokens(list(ids))
    return _reading(*_laid_out(decoded_pieces(tokenizer, ids), raw), raw)


def decoded_pieces(tokenizer: Any, ids: Sequence[int]) -> list[str | None]:
    """What each token adds to the text when they are decoded in order; None: it is special.

    The first of the tokens that share a character has it, the others have nothing.
    """
    special = special_ids(tokenizer)
    pieces: list[str | None] = []
    start = read = 0  # the part that is decoded again, so that spaces come out right; how much of its text was read
    first = 0  # of the tokens that share the character being read
    for i, token in enumerate(ids):
        if token in special:
            pieces.append(None)
            start, read, first = i + 1, 0, i + 1
            continue
        text = _decoded(tokenizer, ids[start : i + 1])
        pieces.append("")
        if text.endswith(_BROKEN) and i + 1 < len(ids) and ids[i + 1] not in special:
            continue  # half a character, which the tokens that follow finish
        pieces[first] = text[read:]
        if _BROKEN in text[read:]:  # what no token finishes: each says what it is
            pieces[first:] = [token_text(tokenizer, token) for token in ids[first : i + 1]]
        read = len(text)
        if i - start >= _DECODED_AT_ONCE:
            start = first
            read = len(_decoded(tokenizer, ids[start : i + 1]))
        first = i + 1
    return pieces


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The tokens that are none of the text: separators, padding, masks; unknown words are text."""
    return frozenset(tokenizer.all_special_ids) - {getattr(tokenizer, "unk_token_id", None)}


def token_text(tokenizer: Any, token: int) -> str:
    """A vocabulary entry as text, with its leading space; of half a character its bytes: ‹E2 80›."""
    raw = tokenizer.convert_ids_to_tokens(token)
    if raw is None:
        return str(token)
    text = _decoded(tokenizer, [token])
    if not text or _BROKEN in text:
        data = bytes_of(str(raw)) if text else None
        return str(raw) if data is None else shown(data)
    spaced = str(raw).startswith(("Ġ", "▁")) and not text[0].isspace()
    return f" {text}" if spaced else text


def token_labels(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token as `token_text` has it; parts of a character that they make together begin with it: "’ ‹E2 80›"."""
    labels, texts = [token_text(tokenizer, token) for token in ids], read_ids(tokenizer, ids).texts
    whole = ""
    for i, text in enumerate(texts):
        whole = text or whole
        split = labels[i] != text and (not text or (i + 1 < len(texts) and not texts[i + 1]))
        if split and whole:
            labels[i] = f"{whole} {labels[i].strip()}"
    return labels


def _reading(text: str, spans: Sequence[tuple[int, int] | None], raw: Sequence[str]) -> Reading:
    of_character = words_of(text)
    numbers: dict[int, int] = {}  # word of the text → word of the tokens; words that share a token are one
    words: list[int | None] = []
    last = -1
    for span in spans:
        covered = sorted({w for w in of_character[span[0] : span[1]] if w is not None}) if span else []
        if not covered:
            pending = span is not None and span[0] == span[1] and span[0] > 0
            words.append(_word_before(words) if pending else None)
            continue
        known = [numbers[w] for w in covered if w in numbers]
        if not known:
            last += 1
        number = known[0] if known else last
        numbers |= dict.fromkeys(covered, number)
        words.append(number)
    texts = tuple(str(entry) if span is None else text[slice(*span)] for span, entry in zip(spans, raw, strict=True))
    return Reading(texts, tuple(words))


def _word_before(words: Sequence[int | None]) -> int | None:
    return words[-1] if words else None


def _next_start(offsets: Sequence[tuple[int, int]], i: int, stop: int, length: int) -> int:
    """Where the next token that has characters of its own begins."""
    return next((start for start, end in offsets[i + 1 :] if end > stop), length)


def _with_marks(text: str, stop: int, limit: int) -> int:
    """`stop`, moved past combining marks that no token has because the tokenizer strips them."""
    while 0 < stop < limit and kind_of(text[stop]) == "mark":
        stop += 1
    return stop


def _is_white(entry: object) -> bool:
    return bool(entry) and not str(entry).strip("ĠĊĉ▁ \n\t\r")


def _white_length(text: str, most: int) -> int:
    """How many of the first `most` characters of `text` are white space from its beginning on."""
    return min(most, len(text) - len(text.lstrip()))


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False) if ids else ""
    return str(text)


def _laid_out(pieces: Sequence[str | None], raw: Sequence[str]) -> tuple[str, list[tuple[int, int] | None]]:
    """The text that the pieces make, and where each is; a space that only separates words belongs to no token."""
    text, spans = "", list[tuple[int, int] | None]()
    for piece, entry in zip(pieces, raw, strict=True):
        if piece is None:
            spans.append(None)
            text += " " if text and not text.endswith(" ") else ""
            continue
        start = len(text)
        if piece.startswith(" ") and piece.strip() and not str(entry).startswith(_SPACES):
            start += 1
        text += piece
        spans.append((start, len(text)))
    return text, spans
