"""A photo as browsers can show it: they draw no TIFF."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from app.places import new_place
from attrib.models.images import pictures_of

DRAWN = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "MPO", "AVIF")  # formats of Pillow's that browsers draw


def drawable(photo: str, folder: str) -> tuple[str, tuple[str, ...]] | None:
    """A PNG of a photo that was read before, and what was decided to get it; None where browsers draw it as it is.

    folder: where files of the server are written. To a model both are the same: PNG loses nothing of RGB.
    """
    with Image.open(photo) as opened:
        if opened.format in DRAWN:
            return None
    picture = pictures_of(photo)[0]
    path = new_place(folder) / f"{Path(photo).stem}.png"
    picture.image.save(path, compress_level=1)
    return str(path), picture.notes
