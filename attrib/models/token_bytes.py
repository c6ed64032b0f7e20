"""Vocabulary entries that are parts of characters: byte-level vocabularies split "’" into ‹E2 80› and ‹99›.

Such an entry is shown as what it is: its whole characters as text, the bytes of unfinished ones as hexadecimal numbers
between ‹ and ›. The same text names it: `bytes_named` is the way back.
"""

from __future__ import annotations

import re
from functools import cache

_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how vocabularies of characters write a byte
_SHOWN = re.compile(r"‹((?:[0-9A-F]{2} )*[0-9A-F]{2})›")
_LOST = re.compile("[\udc80-\udcff]+")


def bytes_of(entry: str) -> bytes | None:
    """The bytes that a vocabulary entry stands for; None where it is no entry of bytes."""
    alone = _FALLBACK.fullmatch(entry)
    if alone is not None:
        return bytes.fromhex(alone[1])
    values = [_byte_of().get(character) for character in entry]
    return None if None in values or not values else bytes(value for value in values if value is not None)


def shown(data: bytes) -> str:
    """The bytes as text, those that make no character as ‹E2 80›."""
    text = data.decode("utf-8", "surrogateescape")
    return _LOST.sub(lambda lost: f"‹{' '.join(f'{ord(c) - 0xDC00:02X}' for c in lost[0])}›", text)


def entries_named(text: str) -> tuple[str, ...]:
    """The entries that `text`, as `shown` writes it, may mean; none where it names no bytes."""
    if not _SHOWN.search(text):
        return ()
    parts = _SHOWN.split(text)  # text and bytes by turns
    data = b"".join(bytes.fromhex(p) if i % 2 else p.encode("utf-8", "replace") for i, p in enumerate(parts))
    character_of = {value: character for character, value in _byte_of().items()}
    spelled = "".join(character_of[value] for value in data)
    return (spelled, f"<0x{data[0]:02X}>") if len(data) == 1 else (spelled,)


@cache
def _byte_of() -> dict[str, int]:
    """Byte-level vocabularies write each byte as one printable character: itself, or one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(0x100 + i): value for i, value in enumerate(others)}
