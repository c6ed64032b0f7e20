"""The four lights of a map as a card shows them: in words, as a curve, and beside the map that was compared.

What failed is said by a word and a shape; colour only repeats it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from attrib.attribution import Attribution
from attrib.render.overlay import over
from attrib.render.pictures import embedded
from attrib.render.scale import Display, drawn_maps, is_signed, number, scales
from attrib.render.tokens import direction, pieces, spans, token_scales

if TYPE_CHECKING:
    from attrib.metrics.evidence import Light

SIGNS = {"passes": "✓", "fails": "✕", "not checked": "?", "does not apply": "–"}
_THUMBNAIL = 160
_WIDTH, _HEIGHT = 180.0, 84.0  # of the plot's field; the picture around it is in lights.html
_BESIDE = {
    "better than random": "the same of random maps, on average",
    "agrees with activation patching": "unrelated effects",
}
_UPWARDS = {
    "deletion": "the prediction while what is marked is removed (deletion) or put in (insertion)",
    "rank correlation": "how alike the two maps are",
}
_FACTS = {
    "sparseness": "sparseness (Gini; 1: a single spot)",
    "complexity": "complexity (entropy, nats)",
    "recovery": "likeness to the picture itself (0 to 1)",
}


def described(facts: Mapping[str, float | None]) -> tuple[tuple[str, str], ...]:
    """Numbers that describe a map and do not judge it, as a card lists them."""
    return tuple((_FACTS.get(name, name), _signed(value)) for name, value in facts.items() if value is not None)


def shown_lights(lights: Sequence[Light], a: Attribution, sample: int, display: Display) -> list[dict[str, Any]]:
    """What the template needs of each light of one sample of `a`."""
    return [
        {
            "name": light.name,
            "verdict": light.verdict,
            "kind": light.verdict.replace(" ", "-"),
            "sign": SIGNS[light.verdict],
            "words": light.words,
            "cost": light.cost,
            "numbers": _numbers(light),
            "plot": _plot(light),
            "pair": _pair(light, a, sample, display),
        }
        for light in lights
    ]


def headline(lights: Sequence[Light]) -> tuple[str, str] | None:
    """(kind, one sentence) on all lights together; None where there are none."""
    if not lights:
        return None
    failing = [light.failing for light in lights if light.verdict == "fails"]
    waiting = sum(light.verdict == "not checked" for light in lights)
    rest = "" if not waiting else f" Not checked yet: {waiting} of {len(lights)}."
    if failing:
        said = failing[0] if len(failing) == 1 else ", ".join(failing[:-1]) + " and " + failing[-1]
        return "fails", f"This map fails {len(failing)} of {len(lights)} checks: it {said}.{rest}"
    if waiting:
        return "not-checked", rest.strip()
    return "passes", "This map passes every check that applies to it."


def _numbers(light: Light) -> list[tuple[str, str]]:
    value, other = light.value, light.comparison
    least = light.verdict == "fails" and value is not None and other is not None and value < other
    beside = _BESIDE.get(light.name, "the least that passes" if least else "the most that passes")
    return [(name, _signed(each)) for name, each in (("this map", value), (beside, other)) if each is not None]


def _signed(value: float) -> str:
    return number(round(value, 4)) if np.isfinite(value) else "not a number"


def _plot(light: Light) -> dict[str, Any] | None:
    """Curves as points of an SVG; None where there are not two finite points."""
    curves = {name: np.array(curve, dtype=float) for name, curve in light.curves.items() if len(curve) == len(light.at)}
    curves = {name: curve for name, curve in curves.items() if len(curve) > 1 and np.isfinite(curve).all()}
    if not curves:
        return None
    # whatever order a report's journal gave them: the map's own first
    curves = dict(sorted(curves.items(), key=lambda pair: (_own(pair[0], curves) != pair[0], pair[0])))
    # a single curve is judged by itself: the bound belongs into its field
    bound = light.comparison if len(curves) == 1 else None
    every = np.concatenate([*curves.values(), [0.0], [] if bound is None else [bound]])
    low, high = float(every.min()), float(every.max()) or 1.0
    at = np.array(light.at)
    across = (at - at[0]) / ((at[-1] - at[0]) or 1.0) * _WIDTH
    lines = [
        {"name": name, "points": _points(across, _down(curve, low, high)), **_stroke(name, list(curves))}
        for name, curve in curves.items()
    ]
    return {
        "lines": lines,
        "bound": None if bound is None else (f"{_down(np.array([bound]), low, high)[0]:.1f}", number(bound)),
        "axes": [("across", light.axis), ("up", _UPWARDS.get(next(iter(curves)), "the score"))],
        "x": (f"{at[0]:.0%}", f"{at[-1]:.0%}"),
        "y": (_signed(round(low, 3)), _signed(round(high, 3))),
        "alt": "; ".join(f"{name}: from {_signed(c[0])} to {_signed(c[-1])}" for name, c in curves.items()),
    }


def _own(name: str, names: Iterable[str]) -> str:
    """ "deletion" for "deletion of random maps", where both are drawn."""
    return next((other for other in names if name.startswith(f"{other} of ")), name)


def _stroke(name: str, names: list[str]) -> dict[str, Any]:
    """ "deletion of random maps" has the colour of "deletion", and is dashed. names: in order, the map's own first."""
    own = _own(name, names)
    return {"colour": names.index(own) % 2, "dashed": own != name}


def _down(curve: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.asarray((high - curve) / ((high - low) or 1.0) * _HEIGHT)


def _points(across: np.ndarray, down: np.ndarray) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))


def _pair(light: Light, a: Attribution, sample: int, display: Display) -> list[dict[str, Any]]:
    """The map and the one that it was compared with, each on a scale of its own: only their patterns are compared."""
    found = []
    for name, other in light.maps.items():
        if a.kind in ("input", "layer"):
            found += [_picture("this map", a.heatmap()[sample], a, sample, display)]
            found += [_picture(name, other.astype(np.float32), a, sample, display)]
        elif a.kind == "tokens" and a.token_texts is not None:
            found += [_tokens("this map", a, sample, display)]
            found += [_tokens(name, _with_values(a, sample, other), 0, display)]
    return found


def _picture(name: str, values: np.ndarray, a: Attribution, sample: int, display: Display) -> dict[str, Any]:
    drawn = drawn_maps([values], display)[0]
    scale = scales([drawn], [is_signed(a)], replace(display, how="own"))[0]
    photo = None if a.pictures is None else a.pictures[sample]
    picture = over(drawn, scale, photo, display, _THUMBNAIL)
    return {"name": name, "picture": embedded(picture, "JPEG"), "tokens": None}


def _tokens(name: str, a: Attribution, sample: int, display: Display) -> dict[str, Any]:
    own = replace(display, how="own", part="both")
    shown = pieces(a, sample, own)
    scale = token_scales([(a, sample)], own)[0]
    return {
        "name": name,
        "picture": None,
        "tokens": spans(shown, scale),
        "direction": direction([p.text for p in shown]),
    }


def _with_values(a: Attribution, sample: int, values: np.ndarray) -> Attribution:
    """The sample alone, with other values."""
    texts, words = a.token_texts, a.words
    return replace(
        a,
        values=a.values.new_tensor(values)[None],
        parts=None,
        token_texts=None if texts is None else (texts[sample],),
        words=None if words is None else (words[sample],),
    )
