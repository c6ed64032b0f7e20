"""Relevance to pictures: colour scales, overlays, figures and HTML. Knows `Attribution` and nothing else of attrib."""

from attrib.render.html import Entry, Pictures, cards, embedded, fragment, is_text, legend, standalone
from attrib.render.overlay import annotated, over, verdict
from attrib.render.scale import HOW, PALETTES, Display, Scale, drawn_maps, is_signed, scales
from attrib.render.token_picture import captioned
from attrib.render.tokens import PARTS, has_parts, pieces, readable, token_scales
from attrib.render.triangle import triangle, triangle_picture

__all__ = [
    "HOW",
    "PALETTES",
    "PARTS",
    "Display",
    "Entry",
    "Pictures",
    "Scale",
    "annotated",
    "captioned",
    "cards",
    "drawn_maps",
    "embedded",
    "fragment",
    "has_parts",
    "is_signed",
    "is_text",
    "legend",
    "over",
    "pieces",
    "readable",
    "scales",
    "standalone",
    "token_scales",
    "triangle",
    "triangle_picture",
    "verdict",
]
