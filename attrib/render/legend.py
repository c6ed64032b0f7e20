"""The colour bars above a gallery: what a colour means, for every map that shares it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from markupsafe import Markup

from attrib.render.scale import Display, Scale

_READS = {
    "relative": "; in % of each map's strongest pixels",
    "density": "; in multiples of each map's average pixel",
    "raw": "; in each method's own units",
    "own": "",
}
_TOKENS_READ = "; in % of each method's strongest word or token"


def legend_of(drawn_with: Iterable[Scale], texts: bool, display: Display) -> dict[str, Any]:
    """What legend.html needs; texts: every card shows tokens. No bars where every map has a scale of its own."""
    kinds = {} if display.how == "own" else {scale.signed: scale for scale in drawn_with}
    reads = _TOKENS_READ if texts and display.how in ("relative", "density") else _READS[display.how]
    return {
        "legend": [scale_bar(kinds[signed]) for signed in (True, False) if signed in kinds],
        "reads": reads,
        "texts": texts,
    }


def scale_bar(scale: Scale) -> dict[str, Any]:
    """What the template macro `bar` needs of a scale."""
    stops = [scale.table[k] for k in np.linspace(0, 255, 17).astype(int)]
    gradient = ", ".join(f"rgb({r},{g},{b})" for r, g, b in stops)
    low, high = scale.ends
    # digits and commas only, made here: safe inside a style attribute
    return {"style": Markup(f"background:linear-gradient(to right, {gradient})"), "low": low, "high": high,
            "middle": "0" if scale.signed else "", "signed": scale.signed}  # fmt: skip
