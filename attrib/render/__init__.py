"""Relevance to pictures: colour scales, overlays, figures and HTML. Knows `Attribution` and nothing else of attrib."""

from attrib.render.entry import Check, Entry, Pictures
from attrib.render.html import cards, fragment, standalone
from attrib.render.lights import described, headline
from attrib.render.overlay import annotated, over, verdict
from attrib.render.pictures import embedded
from attrib.render.scale import HOW, PALETTES, Display, Scale, drawn_maps, is_signed, scales
from attrib.render.token_picture import captioned
from attrib.render.tokens import PARTS, has_parts, is_text, pieces, readable, token_scales
from attrib.render.triangle import rather_than, triangle, triangle_picture

__all__ = [
    "HOW",
    "PALETTES",
    "PARTS",
    "Check",
    "Display",
    "Entry",
    "Pictures",
    "Scale",
    "annotated",
    "captioned",
    "cards",
    "described",
    "drawn_maps",
    "embedded",
    "fragment",
    "has_parts",
    "headline",
    "is_signed",
    "is_text",
    "over",
    "pieces",
    "rather_than",
    "readable",
    "scales",
    "standalone",
    "token_scales",
    "triangle",
    "triangle_picture",
    "verdict",
]
