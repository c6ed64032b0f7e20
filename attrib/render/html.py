"""Results as HTML: a fragment for notebooks, cards for a gallery, and a page that stands alone.

Every text passes Jinja2's autoescape; pictures are embedded, so no page asks the network for anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from attrib.attribution import Attribution, labels_of
from attrib.render.entry import Entry, Pictures
from attrib.render.lights import headline, shown_lights
from attrib.render.overlay import over, verdict
from attrib.render.pictures import embedded
from attrib.render.scale import OWN, SHARED, Display, Scale, drawn_maps, is_signed, number, scales
from attrib.render.templating import rendered
from attrib.render.tokens import (
    PARTS,
    direction,
    has_parts,
    ledger_bar,
    pieces,
    readable,
    spans,
    summary,
    token_scales,
)

MAX_SAMPLES = 8
_READS = {
    "relative": "; in % of each map's strongest pixels",
    "density": "; in multiples of each map's average pixel",
    "raw": "; in each method's own units",
    "own": "",
}
_TOKEN_READS = {
    "relative": "; in % of each method's strongest word or token",
    "density": "; in % of each method's strongest word or token",
    "raw": "; in each method's own units",
    "own": "",
}


LARGE = Pictures()


def fragment(attribution: Attribution, display: Display = OWN) -> str:
    """What a notebook shows for a result: up to eight samples, with the numbers that qualify them."""
    entries = [Entry(attribution, sample=i) for i in range(min(len(attribution), MAX_SAMPLES))]
    left_out = len(attribution) - len(entries)
    return rendered("fragment.html", cards=_shown(entries, display), left_out=left_out)


def cards(entries: Sequence[Entry], display: Display = SHARED, pictures: Pictures = LARGE) -> str:
    """A gallery: one card per entry, all under one legend where the scale is shared."""
    return rendered("gallery.html", cards=_shown(entries, display, pictures), **_legend_of(entries, display))


def legend(entries: Sequence[Entry], display: Display = SHARED) -> str:
    """The shared colour bars alone; empty where every map has its own."""
    return rendered("legend.html", **_legend_of(entries, display))


def standalone(
    results: Mapping[str, Attribution] | Sequence[Entry] | Attribution,
    display: Display = SHARED,
    *,
    title: str = "Explanation",
    facts: Mapping[str, str] | None = None,
    before: Markup | str = "",
) -> str:
    """A whole HTML page with embedded pictures, numbers, notes and full provenance.

    facts: go under the title. before: what stands before the cards, such as `triangle`; a str is escaped.
    """
    entries = entries_of(results)
    pictures = entries[0].attribution.pictures if entries else None
    photo = None if pictures is None else embedded(Image.fromarray(pictures[entries[0].sample]))
    return rendered(
        "page.html",
        title=title,
        facts=dict(facts or {}),
        photo=photo,
        before=before,
        cards=_shown(entries, display),
        **_legend_of(entries, display),
    )


def entries_of(results: Mapping[str, Attribution] | Sequence[Entry] | Attribution) -> list[Entry]:
    """Entries for whatever `standalone` takes, every sample of a single result its own."""
    if isinstance(results, Attribution):
        return [Entry(results, sample=i) for i in range(len(results))]
    if isinstance(results, Mapping):
        return [Entry(attribution, title=name) for name, attribution in results.items()]
    return list(results)


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


def _shown(entries: Sequence[Entry], display: Display, pictures: Pictures = LARGE) -> list[dict[str, Any]]:
    drawable = [e for e in entries if e.attribution.kind in ("input", "layer")]
    maps = drawn_maps([e.attribution.heatmap()[e.sample] for e in drawable], display)
    found = scales(maps, [is_signed(e.attribution) for e in drawable], display)
    pairs = {id(e): (m, s) for e, m, s in zip(drawable, maps, found, strict=True)}
    texts = [e for e in entries if is_text(e.attribution)]
    token_scale = dict(zip(map(id, texts), _token_scales(texts, display), strict=True))
    cards_of = []
    for entry in entries:
        values, scale = pairs.get(id(entry), (None, None))
        card = _card(entry, values, scale, display, pictures)
        if id(entry) in token_scale:
            card |= _token_card(entry, token_scale[id(entry)], display)
        if entry.attribution.kind in ("sites", "edges"):
            from attrib.render.sites import card_of  # deferred: matplotlib is slow to import

            card |= card_of(entry.attribution, entry.sample, display)
        cards_of.append(card)
    return cards_of


def is_text(a: Attribution) -> bool:
    """Whether the result can be shown as coloured tokens."""
    return a.kind == "tokens" and a.token_texts is not None and a.values.dim() == 2


def _token_scales(entries: Sequence[Entry], display: Display) -> list[Scale]:
    return token_scales([(e.attribution, e.sample) for e in entries], display)


def _token_card(entry: Entry, scale: Scale, display: Display) -> dict[str, Any]:
    """What a card of a text has instead of a picture."""
    a, i = entry.attribution, entry.sample
    shown = pieces(a, i, display)
    values = np.array([p.value for p in shown])
    return {
        "tokens": spans(shown, scale),
        "direction": direction([p.text for p in shown]),
        "alt": f"{entry.name} for {labels_of(a.target)[i]}: strongest are {summary(shown)}",
        "part": PARTS[display.part] if has_parts(a) else None,
        "no_parts": display.part != "both" and not has_parts(a),
        "words": verdict(values) if len(values) > 1 else None,
        "bar": scale_bar(scale),
        "anchor": None if scale.anchor is None else (scale.anchor[0], number(scale.anchor[1])),
    }


def _card(
    entry: Entry, values: np.ndarray | None, scale: Scale | None, display: Display, pictures: Pictures
) -> dict[str, Any]:
    a, i = entry.attribution, entry.sample
    target = readable(labels_of(a.target)[i])
    ledger = [(name, float(amounts[i])) for name, amounts in (a.ledger or {}).items()]
    card: dict[str, Any] = {
        "title": entry.name,
        "target": target,
        "misleads": entry.misleads,
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
        "ledger_bar": ledger_bar(ledger) if len(ledger) > 1 else [],
        "strongest": [],
        "actions": entry.actions,
    }
    if values is not None and scale is not None:
        photo = None if a.pictures is None else a.pictures[i]
        card["picture"] = embedded(over(values, scale, photo, display, pictures.size), pictures.format)
        card["alt"] = f"{entry.name} for {target}: relevance {where(values)}"
        card["words"] = verdict(values)
        card["bar"] = scale_bar(scale)
        card["anchor"] = None if scale.anchor is None else (scale.anchor[0], number(scale.anchor[1]))
    return card


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


def scale_bar(scale: Scale) -> dict[str, Any]:
    """What the template macro `bar` needs of a scale."""
    stops = [scale.table[k] for k in np.linspace(0, 255, 17).astype(int)]
    gradient = ", ".join(f"rgb({r},{g},{b})" for r, g, b in stops)
    low, high = scale.ends
    # digits and commas only, made here: safe inside a style attribute
    return {"style": Markup(f"background:linear-gradient(to right, {gradient})"), "low": low, "high": high,
            "middle": "0" if scale.signed else "", "signed": scale.signed}  # fmt: skip


def _legend_of(entries: Sequence[Entry], display: Display) -> dict[str, Any]:
    """What legend.html needs."""
    texts = bool(entries) and all(is_text(e.attribution) for e in entries)
    reads = _TOKEN_READS if texts else _READS
    return {"legend": _legends(entries, display), "reads": reads[display.how], "texts": texts}


def _legends(entries: Sequence[Entry], display: Display) -> list[dict[str, Any]]:
    if display.how == "own":
        return []
    texts = _token_scales([e for e in entries if is_text(e.attribution)], display)
    drawable = [e for e in entries if e.attribution.kind in ("input", "layer")]
    maps = drawn_maps([e.attribution.heatmap()[e.sample] for e in drawable], display)
    found = scales(maps, [is_signed(e.attribution) for e in drawable], display)
    kinds = {scale.signed: scale for scale in [*texts, *found]}
    return [scale_bar(kinds[sign]) for sign in (True, False) if sign in kinds]
