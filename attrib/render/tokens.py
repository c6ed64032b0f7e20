"""Relevance of tokens: which pieces are shown, what they say, which colours they get, and the ledger as a bar.

Tokens are untrusted text: `readable` makes what would be invisible or would reorder its surroundings visible, and the
templates escape everything.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attrib.attribution import Attribution
from attrib.render.scale import PALETTES, Display, Scale, colours, number

PARTS: dict[str, str] = {"both": "content and position", "content": "content alone", "position": "position alone"}

# unsigned relevance on text: light means nothing, as it does in the signed map beside it
_LIGHT = {"blue–red": "YlGn", "purple–orange": "Greens", "green–brown": "Purples"}
_NAMED = {"\n": "↵", "\r": "␍", "\t": "⇥", "\u200b": "‹ZWSP›", "\u200c": "‹ZWNJ›", "\u200d": "‹ZWJ›", "\ufeff": "‹BOM›"}
_BIDI = {
    0x200E: "LRM", 0x200F: "RLM", 0x061C: "ALM", 0x202A: "LRE", 0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO",
    0x202E: "RLO", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI",
}  # fmt: skip
_CLOSING = tuple(".,;:!?)]}…%")
_LEDGER_COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2", "#65a30d", "#be185d", "#78716c")


@dataclass(frozen=True)
class Piece:
    """What is shown as one: a token, or a word with the sum of its tokens. special: [CLS], <s>, padding …

    gap: a space is shown before it, because its tokenizer keeps none.
    """

    text: str
    value: float
    special: bool = False
    gap: bool = False


class TokenScale(Scale):
    """A scale whose zero is light, so that dark text stays readable where nothing was found."""

    @property
    def table(self) -> np.ndarray:
        if not self.signed and self.palette in _LIGHT:
            return colours(_LIGHT[self.palette])
        return colours(PALETTES[self.palette][0 if self.signed else 1])


def pieces(a: Attribution, sample: int, display: Display) -> list[Piece]:
    """The tokens of one sample, in the order of the model, merged to words where the display says so."""
    texts = () if a.token_texts is None else a.token_texts[sample]
    words = (None,) * len(texts) if a.words is None else a.words[sample]
    values = part_of(a, display.part)[sample]
    found: list[Piece] = []
    last: int | None = None
    spaced = a.words is None or any(text[:1].isspace() or text[-1:].isspace() for text in texts)
    # a row may be padded: what lies beyond the texts belongs to no token
    for text, word, value in zip(texts, words, values.tolist(), strict=False):
        if display.whole_words and word is not None and word == last:
            found[-1] = replace(found[-1], text=found[-1].text + text, value=found[-1].value + value)
        else:
            special = a.words is not None and word is None and bool(text.strip())
            gap = not spaced and bool(found) and (word is None or word != last) and text[:1] not in _CLOSING
            found.append(Piece(text, value, special, gap))
        last = word
    return found


def part_of(a: Attribution, part: str) -> np.ndarray:
    """(batch, tokens): the values, or their share of content or position where the result has them apart."""
    found = None if part == "both" or a.parts is None else a.parts.get(part)
    chosen = a.values if found is None else found
    return np.asarray(chosen.detach().cpu().double().numpy())


def is_text(a: Attribution) -> bool:
    """Whether the result can be shown as coloured tokens."""
    return a.kind == "tokens" and a.token_texts is not None and a.values.dim() == 2


def has_parts(a: Attribution) -> bool:
    return a.parts is not None and {"content", "position"} <= set(a.parts)


def token_scales(entries: Sequence[tuple[Attribution, int]], display: Display) -> list[Scale]:
    """One scale per result. A result's content, position and sum share theirs, so that colours can be compared.

    Special tokens do not set the scale: [CLS] or the first token often holds more than all words together.
    """
    tops = [_top(a, sample, display) for a, sample in entries]
    signs = [a.signed or (display.part != "both" and has_parts(a)) for a, _ in entries]
    if display.how == "raw":
        tops = [max(tops, default=1.0)] * len(tops)
    if display.how in ("raw", "own"):
        return [TokenScale(top, sign, display.palette) for top, sign in zip(tops, signs, strict=True)]
    return [
        TokenScale(100.0, sign, display.palette, top / 100, " %", ("100 %", top))
        for top, sign in zip(tops, signs, strict=True)
    ]


def _top(a: Attribution, sample: int, display: Display) -> float:
    parts = PARTS if has_parts(a) else ("both",)
    shown = [pieces(a, sample, replace(display, part=part)) for part in parts]
    ordinary = [p.value for row in shown for p in row if not p.special]
    values = np.abs(np.array(ordinary or [p.value for row in shown for p in row], dtype=float))
    values = values[np.isfinite(values)]
    return float(values.max(initial=0.0)) or 1.0


def readable(text: str) -> str:
    """The text with nothing invisible at its edges and nothing in it that acts on its surroundings.

    Control characters, direction marks and surrogates become signs; a joiner inside an emoji stays.
    """
    if not text:
        return "⋯"  # the rest of a character that an earlier token began
    shown = "".join(_shown(text, i) for i in range(len(text)))
    if unicodedata.category(text[0])[0] == "M":  # it would sit on the token before
        shown = "◌" + shown
    return shown if text.strip() else shown.replace(" ", "␣")  # " \n" and "\n" are two tokens


def _shown(text: str, i: int) -> str:
    character = text[i]
    code = ord(character)
    if character == "\u200d" and 0 < i < len(text) - 1:
        return character
    if character in _NAMED:
        return _NAMED[character]
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if code in _BIDI:
        return f"‹{_BIDI[code]}›"
    category = unicodedata.category(character)
    if category == "Cs":
        return "\ufffd"
    if category == "Cc" or (category == "Cf" and not 0xE0020 <= code <= 0xE007F) or category in ("Zl", "Zp"):
        return f"‹U+{code:04X}›"
    return character


def direction(texts: Sequence[str]) -> str:
    """ "rtl" where most letters are of a script that runs right to left, else "ltr"."""
    kinds = [unicodedata.bidirectional(c) for text in texts for c in text]
    right = sum(kind in ("R", "AL") for kind in kinds)
    return "rtl" if right > sum(kind == "L" for kind in kinds) else "ltr"


def spans(shown: Sequence[Piece], scale: Scale) -> list[dict[str, Any]]:
    """What the template needs of each piece: text, value in words, colours, and whether a line ends after it."""
    values = np.array([p.value for p in shown], dtype=float)
    backs = scale.colour(values)
    shown = [_apart(p) for p in shown]
    return [
        {
            "text": readable(p.text),
            "value": told(p.value, scale),
            "style": f"background:#{r:02x}{g:02x}{b:02x};color:{ink((r, g, b))}",
            "special": p.special,
            "gap": p.gap,
            "breaks": "\n" in p.text,
        }
        for p, (r, g, b) in zip(shown, backs.tolist(), strict=True)
    ]


def _apart(piece: Piece) -> Piece:
    """With its leading space as a gap: in its colour it would hang at the end of the line before."""
    spaced = piece.text[:1] == " " and bool(piece.text.strip())
    return replace(piece, text=piece.text[1:], gap=True) if spaced else piece


def told(value: float, scale: Scale) -> str:
    """A value as its tooltip says it: raw, and as a share of the scale where that has a unit."""
    if not np.isfinite(value):
        return "not a number"
    sign = "+" if value > 0 and scale.signed else ""
    raw = f"{sign}{number(value)}"
    if not scale.unit.strip():
        return raw
    return f"{raw} ({sign}{value / scale.unit_size:z.0f}{scale.unit})".replace("(-", "(−")


def ink(back: Sequence[float]) -> str:
    """Black or white, whichever is easier to read on the colour (WCAG relative luminance)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in back)]
    return "#000" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 else "#fff"


def summary(shown: Sequence[Piece]) -> str:
    """In words, for who cannot see colours: the strongest pieces."""
    ordinary = [p for p in shown if not p.special and np.isfinite(p.value) and p.value]
    strongest = sorted(ordinary, key=lambda p: -abs(p.value))[:3]
    return "; ".join(f"{readable(p.text).strip()} {number(p.value)}" for p in strongest) or "nothing"


def ledger_bar(ledger: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Segments of the bar "where the score went": each amount's share of all magnitudes, with its sign."""
    total = sum(abs(amount) for _, amount in ledger if np.isfinite(amount)) or 1.0
    return [
        {
            "name": name,
            "amount": number(amount),
            "width": f"{100 * abs(amount) / total if np.isfinite(amount) else 0:.2f}",
            "colour": _LEDGER_COLOURS[i % len(_LEDGER_COLOURS)],
            "negative": amount < 0,
        }
        for i, (name, amount) in enumerate(ledger)
    ]
