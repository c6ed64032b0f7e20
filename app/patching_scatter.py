"""True effects against estimated ones, as a drawing."""

from __future__ import annotations

import html
import math
from collections import Counter
from typing import Any

import attrib
from app.patching import kind_of, kind_title
from attrib.render import readable
from attrib.render.scale import number

_SIDE, _LEFT, _BOTTOM, _EDGE = 360, 54, 44, 12  # of the drawing, in its own units
_COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")

_ALIKE = 0.25  # of the largest effect


def scatter(found: attrib.Verification) -> str:
    """An SVG: estimates to the right, true effects upwards, on one scale, with the line where they agree."""
    values = [value for e in found.entries for value in (e.estimated, e.true) if math.isfinite(value)]
    low, high = min([0.0, *values]), max([0.0, *values])
    room = 0.06 * ((high - low) or 1.0)
    low, high = low - room, high + room
    kinds = list(dict.fromkeys(kind_of(e.site) for e in found.entries))
    colour = {kind: _COLOURS[i % len(_COLOURS)] for i, kind in enumerate(kinds)}

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_SIDE - _LEFT - _EDGE)

    def y(value: float) -> float:
        return _SIDE - _BOTTOM - (value - low) / (high - low) * (_SIDE - _BOTTOM - _EDGE)

    count = Counter(kind_of(e.site) for e in found.entries)
    rare_last = sorted(found.entries, key=lambda e: -count[kind_of(e.site)])  # in front of the many
    points = "".join(_point(e, x(e.estimated), y(e.true), colour[kind_of(e.site)]) for e in rare_last)
    ticks = "".join(
        f'<text x="{x(v):.1f}" y="{_SIDE - _BOTTOM + 16}" text-anchor="middle">{_digits(v)}</text>'
        f'<text x="{_LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{_digits(v)}</text>'
        f'<path d="M{x(v):.1f} {_EDGE}V{_SIDE - _BOTTOM}M{_LEFT} {y(v):.1f}H{_SIDE - _EDGE}" class="pt-rule"/>'
        for v in _ticks(low, high)
    )
    names = "".join(
        f'<span><span class="at-swatch" style="background-color:{colour[kind]}"></span>{html.escape(kind_title(kind))}'
        "</span>"
        for kind in kinds
    )
    label = f"Scatter of {len(found.entries)} effects, true against estimated, r = {found.correlation:.3f}"
    return (
        f'<figure class="pt-scatter"><svg viewBox="0 0 {_SIDE} {_SIDE}" role="img" aria-label="{label}">{ticks}'
        f'<path d="M{x(low):.1f} {y(low):.1f}L{x(high):.1f} {y(high):.1f}" class="pt-agree"/>{points}'
        f'<text x="{(_LEFT + _SIDE) / 2}" y="{_SIDE - 8}" text-anchor="middle">estimated effect</text>'
        f'<text transform="translate(13 {(_SIDE - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">true effect</text>'
        f'</svg><figcaption class="pt-kinds">{names}<span>dashed: they agree</span></figcaption></figure>'
    )


def alike(found: attrib.Verification) -> str:
    """A sentence where the true effects are so much alike that their correlation says little; else nothing."""
    true = [e.true for e in found.entries]
    low, high = min(true), max(true)
    if len(true) < 2 or low * high <= 0 or high - low >= _ALIKE * max(abs(low), abs(high)):
        return ""
    between = f"{number(low)} to {number(high)}".replace("-", "−")
    return f"The true effects are much alike here, {between}: r compares what little differs. "


def _point(e: Any, x: float, y: float, colour: str) -> str:
    says = f"{e.site} at {e.position} {readable(e.clean)}: estimated {number(e.estimated)}, true {number(e.true)}"
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"><title>{html.escape(says)}</title></circle>'


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between the two."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _digits(value: float) -> str:
    return f"{value:g}".replace("-", "−", 1) if abs(value) > 1e-12 else "0"
