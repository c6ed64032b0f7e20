"""Results as HTML: a fragment for notebooks, cards for a gallery, and a page that stands alone.

Every text passes Jinja2's autoescape; pictures are embedded, so no page asks the network for anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from attrib.attribution import Attribution
from attrib.render.card import card, picture_card, token_card
from attrib.render.entry import Entry, Pictures
from attrib.render.legend import legend_of
from attrib.render.pictures import embedded
from attrib.render.scale import OWN, SHARED, Display, Scale, drawn_maps, is_signed, scales
from attrib.render.templating import rendered
from attrib.render.tokens import is_text, token_scales

MAX_SAMPLES = 8
LARGE = Pictures()


def fragment(attribution: Attribution, display: Display = OWN) -> str:
    """What a notebook shows for a result: up to eight samples, with the numbers that qualify them."""
    entries = [Entry(attribution, sample=i) for i in range(min(len(attribution), MAX_SAMPLES))]
    left_out = len(attribution) - len(entries)
    return rendered("fragment.html", cards=_gallery(entries, display)["cards"], left_out=left_out)


def cards(entries: Sequence[Entry], display: Display = SHARED, pictures: Pictures = LARGE) -> str:
    """A gallery: one card per entry, all under one legend where the scale is shared."""
    return rendered("gallery.html", **_gallery(entries, display, pictures))


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
        **_gallery(entries, display),
    )


def entries_of(results: Mapping[str, Attribution] | Sequence[Entry] | Attribution) -> list[Entry]:
    """Entries for whatever `standalone` takes, every sample of a single result its own."""
    if isinstance(results, Attribution):
        return [Entry(results, sample=i) for i in range(len(results))]
    if isinstance(results, Mapping):
        return [Entry(attribution, title=name) for name, attribution in results.items()]
    return list(results)


def _gallery(entries: Sequence[Entry], display: Display, pictures: Pictures = LARGE) -> dict[str, Any]:
    """What a page needs to show the entries: a card each, and the legend that they share."""
    drawn = _drawn(entries, display)
    return {
        "cards": [_card(entry, *drawn[k], display, pictures) for k, entry in enumerate(entries)],
        **legend_of([scale for _, scale in drawn if scale is not None], _all_texts(entries), display),
    }


def _all_texts(entries: Sequence[Entry]) -> bool:
    return bool(entries) and all(is_text(e.attribution) for e in entries)


def _drawn(entries: Sequence[Entry], display: Display) -> list[tuple[np.ndarray | None, Scale | None]]:
    """The map and the scale of every entry; of a text the scale alone, of patching none of both."""
    pictured = [e for e in entries if e.attribution.kind in ("input", "layer")]
    texts = [e for e in entries if is_text(e.attribution)]
    maps = drawn_maps([e.attribution.heatmap()[e.sample] for e in pictured], display)
    of_maps = scales(maps, [is_signed(e.attribution) for e in pictured], display)
    of_texts = token_scales([(e.attribution, e.sample) for e in texts], display)
    found: dict[int, tuple[np.ndarray | None, Scale | None]] = {
        **{id(e): (None, scale) for e, scale in zip(texts, of_texts, strict=True)},
        **{id(e): (m, scale) for e, m, scale in zip(pictured, maps, of_maps, strict=True)},
    }
    return [found.get(id(e), (None, None)) for e in entries]


def _card(
    entry: Entry, values: np.ndarray | None, scale: Scale | None, display: Display, pictures: Pictures
) -> dict[str, Any]:
    said = card(entry, display)
    if values is not None and scale is not None:
        return said | picture_card(entry, values, scale, display, pictures)
    if scale is not None:
        return said | token_card(entry, scale, display)
    if entry.attribution.kind in ("sites", "edges"):
        from attrib.render.sites import card_of  # deferred: matplotlib is slow to import

        return said | card_of(entry, display)
    return said
