"""Which characters of a text belong to one word, in every script."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
_SKIN_TONES = ("\U0001f3fb", "\U0001f3ff")
_APOSTROPHES = "'’"


def words_of(text: str) -> list[int | None]:
    """The index of each character's word; None for white space.

    A word is a run of letters, digits and marks with apostrophes inside ("wasn't"); an ideograph, an emoji with what
    modifies it, or a run of one punctuation mark is a word of its own.
    """
    words: list[int | None] = []
    number, kind, last = -1, "", ""
    for i, character in enumerate(text):
        now = kind_of(character)
        following = text[i + 1] if i + 1 < len(text) else ""
        if now == "mark" and kind not in ("", "space"):
            words.append(number)  # and what it modifies stays what comes before
            last = character
            continue
        if character in _APOSTROPHES + ".," and kind == "letters" and _goes_on(character, last, following):
            words.append(number)
            last = character
            continue
        joined = now == "letters" == kind or (now == kind == "sign" and character == last)
        joined = joined or (kind == "picture" == now and last == "\u200d")
        if now == "space":
            words.append(None)
        else:
            number += not joined
            words.append(number)
        kind, last = now, character
    return words


def _goes_on(character: str, last: str, following: str) -> bool:
    """An apostrophe between letters, a point or comma between digits."""
    if character in _APOSTROPHES:
        return following.isalpha()
    return last.isdigit() and following.isdigit()


def kind_of(character: str) -> str:
    """space, mark (it modifies the character before it), ideograph, letters, picture or sign."""
    if character.isspace():
        return "space"
    category = unicodedata.category(character)
    if category.startswith("M") or character in _JOINERS or _SKIN_TONES[0] <= character <= _SKIN_TONES[1]:
        return "mark"
    if _is_ideograph(character):
        return "ideograph"
    if character.isalnum() or character == "_":
        return "letters"
    return "picture" if category == "So" else "sign"


def _is_ideograph(character: str) -> bool:
    return "\u3400" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or character >= "\U00020000"
