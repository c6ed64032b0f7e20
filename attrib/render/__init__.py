"""Relevance to pictures: colour scales, overlays, figures and HTML. Knows `Attribution` and nothing else of attrib."""

from attrib.render.html import Entry, cards, fragment, legend, standalone
from attrib.render.overlay import annotated, over, verdict
from attrib.render.scale import HOW, PALETTES, Display, Scale, drawn_maps, scales

__all__ = [
    "HOW",
    "PALETTES",
    "Display",
    "Entry",
    "Scale",
    "annotated",
    "cards",
    "drawn_maps",
    "fragment",
    "legend",
    "over",
    "scales",
    "standalone",
    "verdict",
]
