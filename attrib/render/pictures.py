"""Pictures inside a page: as data URIs, so that no page asks the network for anything."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image


def embedded(picture: Image.Image, format: str = "PNG") -> str:
    """A data URI of the picture as PNG, or as JPEG with colours at full resolution."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 88, "subsampling": 0} if format == "JPEG" else {}
    picture.save(buffer, format, **options)
    return f"data:image/{format.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
