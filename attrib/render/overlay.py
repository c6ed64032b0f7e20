"""A heatmap over its photo, and a captioned picture with its colour bar, as PIL images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from attrib.render.scale import SHARED, Display, Scale

_GREY = np.array([0.299, 0.587, 0.114])


def verdict(values: np.ndarray) -> str | None:
    """What must be said in words because a picture would not show it; None for an ordinary map."""
    finite = np.isfinite(values)
    if not finite.any():
        return "no number in the whole map (NaN)"
    if not finite.all():
        share = 100 * (1 - finite.mean())
        return f"{max(share, 0.1):.1f} % of the map is not a number (grey)"
    if not values.any():
        return "all zero: the method found nothing"
    if values.min() == values.max():
        return "constant: the same value everywhere"
    return None


def over(
    values: np.ndarray, scale: Scale, photo: np.ndarray | None, display: Display = SHARED, size: int = 448
) -> Image.Image:
    """The map of one sample, (h, w), over its photo, (H, W, 3) uint8; `size` is the longer side in pixels.

    The photo turns grey where the map is strong, so that hue always belongs to the map.
    """
    height, width = photo.shape[:2] if photo is not None else values.shape
    factor = size / max(height, width)
    wanted = (max(1, round(width * factor)), max(1, round(height * factor)))
    stretched = _stretched(values, wanted)
    heat = scale.colour(stretched).astype(np.float32)
    if display.raw or photo is None:
        return _worded(Image.fromarray(heat.astype(np.uint8)), verdict(values))
    base = np.asarray(Image.fromarray(photo).resize(wanted, Image.Resampling.BICUBIC), dtype=np.float32)
    strength = np.sqrt(np.abs(np.nan_to_num(scale.normalised(stretched), nan=1.0)))[..., None]
    alpha = display.opacity * strength
    # half-grey everywhere and lighter, so that a faint colour is not mistaken for the photo's own
    faded = base + display.opacity * (0.35 * 255 + 0.65 * (base @ _GREY)[..., None] - base)
    picture = faded * (1 - alpha) + heat * alpha
    return _worded(Image.fromarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8)), verdict(values))


def annotated(picture: Image.Image, scale: Scale, title: str) -> Image.Image:
    """The picture with a title above and the labelled colour bar below: it can stand alone in a slide."""
    font, band = _font(15), 26
    sheet = Image.new("RGB", (picture.width, picture.height + 3 * band), "white")
    sheet.paste(picture, (0, band))
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 4), _fitted(title, font, picture.width - 12), fill="black", font=font)
    bar = Image.fromarray(scale.table[None]).resize((picture.width - 12, band - 10))
    sheet.paste(bar, (6, band + picture.height + 6))
    low, high = scale.ends
    line = picture.height + 2 * band + 2
    draw.text((6, line), low, fill="black", font=font)
    draw.text((picture.width - 6 - font.getlength(high), line), high, fill="black", font=font)
    if scale.signed:
        draw.text((picture.width / 2 - font.getlength("0") / 2, line), "0", fill="black", font=font)
    return sheet


def _stretched(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear; NaN pixels stay NaN instead of spreading."""
    bad = ~np.isfinite(values)
    clean = np.where(bad, 0.0, values).astype(np.float32)
    picture = np.array(Image.fromarray(clean).resize(size, Image.Resampling.BILINEAR))
    if bad.any():
        picture[np.asarray(Image.fromarray(bad.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0] = np.nan
    return picture


def _worded(picture: Image.Image, words: str | None) -> Image.Image:
    if words is None:
        return picture
    font = _font(max(11, picture.width // 26))
    draw = ImageDraw.Draw(picture)
    height = font.size * 2
    draw.rectangle((0, 0, picture.width, height), fill=(30, 30, 30))
    draw.text((8, height / 4), _fitted(words, font, picture.width - 16), fill="white", font=font)
    return picture


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl  # its wheel ships a font that has − and ×

    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
