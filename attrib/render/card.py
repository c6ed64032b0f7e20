"""What one card says of a result: the map, the numbers that qualify it, and how it came about."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from attrib.attribution import Attribution, labels_of
from attrib.render.entry import Entry, Pictures
from attrib.render.legend import scale_bar
from attrib.render.lights import headline, shown_lights
from attrib.render.overlay import over, verdict
from attrib.render.pictures import embedded
from attrib.render.scale import Display, Scale, number
from attrib.render.tokens import PARTS, direction, has_parts, ledger_bar, pieces, readable, spans, summary

_IN_SIGHT = 60  # words of a text; of a longer one the box on a phone shows the beginning


def card(entry: Entry, display: Display) -> dict[str, Any]:
    """What every card says, whatever its result is shown as."""
    a, i = entry.attribution, entry.sample
    target = readable(labels_of(a.target)[i])
    ledger = [(name, float(amounts[i])) for name, amounts in (a.ledger or {}).items()]
    return {
        "title": entry.name,
        "target": target,
        "misleads": _first_sentence(entry.misleads),
        "formula": entry.formula,
        "reference": entry.reference,
        "evidence": list(entry.evidence),
        "lights": shown_lights(entry.lights, a, i, display),
        "headline": headline(entry.lights),
        "check": entry.check,
        "score": number(float(a.score[i])),
        "completeness": _completeness(a, i),
        "ledger": [(name, number(amount)) for name, amount in ledger],
        "coverage": None if a.coverage is None else str(a.coverage),
        "uncovered": [] if a.coverage is None else list(a.coverage.uncovered),
        "notes": list(a[i].notes),
        "seconds": f"{a.provenance.seconds:.2f} s",
        "settings": [(k, str(v)) for k, v in a.provenance.settings.items() if k != "method"],
        "provenance": _provenance(a, i),
        "picture": None,
        "anchor": None,
        "bar": None,
        "words": None,
        "tokens": None,
        "strongest_words": None,
        "ledger_bar": ledger_bar(ledger) if len(ledger) > 1 else [],
        "strongest": [],
        "actions": entry.actions,
    }


def picture_card(
    entry: Entry, values: np.ndarray, scale: Scale, display: Display, pictures: Pictures
) -> dict[str, Any]:
    """What the card of a map has besides: the map over its photo."""
    a, i = entry.attribution, entry.sample
    photo = None if a.pictures is None else a.pictures[i]
    return {
        "picture": embedded(over(values, scale, photo, display, pictures.size), pictures.format),
        "alt": f"{entry.name} for {readable(labels_of(a.target)[i])}: relevance {where(values)}",
        "words": verdict(values),
        **_scale(scale),
    }


def token_card(entry: Entry, scale: Scale, display: Display) -> dict[str, Any]:
    """What the card of a text has instead of a picture."""
    a, i = entry.attribution, entry.sample
    shown = pieces(a, i, display)
    values = np.array([p.value for p in shown])
    return {
        "tokens": spans(shown, scale),
        "direction": direction([p.text for p in shown]),
        "alt": f"{entry.name} for {labels_of(a.target)[i]}: strongest are {summary(shown)}",
        "strongest_words": summary(shown) if len(shown) > _IN_SIGHT else None,
        "part": PARTS[display.part] if has_parts(a) else None,
        "no_parts": display.part != "both" and not has_parts(a),
        "words": verdict(values) if len(values) > 1 else None,
        **_scale(scale),
    }


def where(values: np.ndarray) -> str:
    """In words, for who cannot see the map: the ninth of the picture that holds most of it."""
    strength = np.abs(np.nan_to_num(values))
    if not strength.any():
        return "nowhere"
    rows = np.array_split(strength, 3, axis=0)
    shares = np.array([[cell.sum() for cell in np.array_split(row, 3, axis=1)] for row in rows])
    row, column = divmod(int(shares.argmax()), 3)
    vertical, horizontal = ("top", "middle", "bottom")[row], ("left", "centre", "right")[column]
    place = "centre" if (row, column) == (1, 1) else f"{vertical} {horizontal}"
    return f"most in the {place} ({shares[row, column] / shares.sum():.0%} of the total)"


def _first_sentence(text: str) -> tuple[str, str]:
    """(the first sentence, those behind it)."""
    first, *others = re.split(r"(?<=\.)(?<! al\.) ", text, maxsplit=1)
    return first, "".join(others)


def _scale(scale: Scale) -> dict[str, Any]:
    anchor = None if scale.anchor is None else (scale.anchor[0], number(scale.anchor[1]))
    return {"bar": scale_bar(scale), "anchor": anchor}


def _completeness(a: Attribution, i: int) -> str | None:
    relative = a.relative_delta
    if a.delta is None or relative is None:
        return None
    share = 100 * float(relative[i])
    return f"{number(float(a.delta[i]))} ({'< 0.01' if share < 0.01 else number(share)} %)"


def _provenance(a: Attribution, i: int) -> list[tuple[str, str]]:
    p = a.provenance
    rows = {
        "model": p.model,
        "weights": p.weights_hash,
        "input": p.input_hashes[i] if i < len(p.input_hashes) else "",
        "device": f"{p.device}, {p.dtype}",
        "chosen here": ", ".join(f"{name} (given: {given})" for name, given in p.chosen.items()),
        "seed": "" if p.seed is None else str(p.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in p.versions.items()),
        "peak memory": f"{p.peak_memory / 2**20:.0f} MB",
        "created": p.created,
    }
    return [(name, value) for name, value in rows.items() if value]
