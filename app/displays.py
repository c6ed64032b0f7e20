"""How results are shown at first, and from the values of the display's controls."""

from __future__ import annotations

from attrib.render import Display

VIEWS = ("over the photo", "map alone")
USUAL = Display(blur=1.0)  # single pixels are hard to see; one pixel of smoothing moves nothing
USUAL_TEXT = Display(whole_words=True)
TEXT_SCALES = {"relative": "Shared, % of each method's strongest", "raw": "Shared, raw values", "own": "Each its own"}


def image_display(opacity: float, palette: str, how: str, percentile: float, view: str, blur: float) -> Display:
    """From the values of the image tab's display controls."""
    return Display(float(opacity), palette, how, float(percentile), view == VIEWS[1], float(blur))


def text_display(part: str, whole_words: bool, how: str, palette: str) -> Display:
    """From the values of the text tab's display controls."""
    return Display(palette=palette, how=how, part=part, whole_words=bool(whole_words))
