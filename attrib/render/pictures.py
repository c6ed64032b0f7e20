"""Pictures inside a page: as data URIs, so that no page asks the network for anything."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def embedded(picture: Image.Image, format: str = "PNG") -> str:
    """A data URI of the picture as PNG, or as JPEG with colours at full resolution."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 88, "subsampling": 0} if format == "JPEG" else {}
    picture.save(buffer, format, **options)
    return _uri(buffer, format.lower())


def drawn(figure: Figure) -> str:
    """A data URI of the figure as PNG without a ground: class at-drawn gives it the page's, light or dark."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, transparent=True)
    return _uri(buffer, "png")


def _uri(content: io.BytesIO, format: str) -> str:
    return f"data:image/{format};base64," + base64.b64encode(content.getvalue()).decode()
