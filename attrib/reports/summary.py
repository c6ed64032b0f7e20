"""What the end of a report needs of an item, a few kilobytes: its maps on a coarse grid, and thumbnails.

So that the pages over all items never read the raw maps again, and memory does not grow with the number of items.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch.nn.functional import adaptive_avg_pool2d

from attrib.attribution import Attribution
from attrib.errors import ReportError
from attrib.render import Display, drawn_maps, is_signed, is_text, over, scales
from attrib.reports.store import Row, digest

GRID = 32  # cells along each side
THUMBNAIL = 96  # pixels
MAX_THUMBNAILS = 4  # per item: its first results


class Series(NamedTuple):
    """What maps are compared along: results of one model by one method for one target."""

    model: str
    method: str
    target: str

    @staticmethod
    def of(row: Row) -> Series:
        return Series(row.model, row.method, row.target)


@dataclass(frozen=True)
class Summary:
    """Of one item. digest: of the rows that it is made from, by which it is known to be current.

    maps: per row, (GRID, GRID) float32 of an image, (tokens,) of a text, None where there is none.
    photo: JPEG of what the model saw, b"" for texts. thumbnails: of the first rows, JPEG each, b"" where there is none.
    """

    digest: str
    maps: tuple[np.ndarray | None, ...]
    photo: bytes
    thumbnails: tuple[bytes, ...]

    @staticmethod
    def of(rows: Sequence[Row], attributions: Sequence[Attribution | None]) -> Summary:
        """Of an item's rows and their results, a batch of one each; None where a row failed."""
        shown = [a for a in attributions if a is not None and a.pictures is not None]
        photo = b"" if not shown or shown[0].pictures is None else _jpeg(Image.fromarray(shown[0].pictures[0]))
        maps = tuple(reduced(a) for a in attributions)
        return Summary(digest(list(rows)), maps, photo, _thumbnails(attributions[:MAX_THUMBNAILS]))

    def to_bytes(self) -> bytes:
        """As a safetensors file; equal summaries give equal bytes."""
        tensors = {f"map.{i}": m for i, m in enumerate(self.maps) if m is not None}
        pictures = {"photo": self.photo} | {f"thumbnail.{i}": t for i, t in enumerate(self.thumbnails)}
        tensors |= {name: np.frombuffer(content, dtype=np.uint8) for name, content in pictures.items() if content}
        sizes = {"sizes": np.array([len(self.maps), len(self.thumbnails)], dtype=np.int64)}
        sizes["digest"] = np.frombuffer(self.digest.encode(), dtype=np.uint8)
        return bytes(save(tensors | sizes))

    @staticmethod
    def from_bytes(content: bytes) -> Summary:
        """Raises ReportError for what `to_bytes` did not write."""
        try:
            tensors = load(content)
            rows, pictures = tensors["sizes"].tolist()
            made_from = tensors["digest"].tobytes().decode()
        except (SafetensorError, KeyError, ValueError) as error:
            raise ReportError(f"this is no summary of an item: {error}; delete it, it is made anew") from error

        def picture(name: str) -> bytes:
            return tensors[name].tobytes() if name in tensors else b""

        return Summary(
            made_from,
            tuple(tensors.get(f"map.{i}") for i in range(rows)),
            picture("photo"),
            tuple(picture(f"thumbnail.{i}") for i in range(pictures)),
        )


def reduced(a: Attribution | None) -> np.ndarray | None:
    """The map on the grid, each cell the mean of its pixels; of a text its tokens' values; NaN is 0."""
    if a is None:
        return None
    if is_text(a):
        values = a.values[0].detach().float().cpu().numpy()
    elif a.kind == "layer":
        values = a.heatmap(GRID)[0]
    elif a.kind == "input":
        values = adaptive_avg_pool2d(torch.from_numpy(a.heatmap()).nan_to_num(0, 0, 0), GRID)[0].numpy()
    else:
        return None
    return np.ascontiguousarray(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), dtype=np.float32)


def _thumbnails(attributions: Sequence[Attribution | None]) -> tuple[bytes, ...]:
    drawable = [a for a in attributions if a is not None and a.kind in ("input", "layer")]
    maps = drawn_maps([_coarse(a) for a in drawable], Display())
    found = scales(maps, [is_signed(a) for a in drawable], Display())
    pictures = {
        id(a): _jpeg(over(values, scale, None if a.pictures is None else a.pictures[0], size=THUMBNAIL))
        for a, values, scale in zip(drawable, maps, found, strict=True)
    }
    return tuple(pictures.get(id(a), b"") for a in attributions)


def _coarse(a: Attribution) -> np.ndarray:
    """The map at a thumbnail's size, each pixel the mean of its own: single pixels of a fine map would be lost."""
    maps = torch.from_numpy(a.heatmap())
    height, width = maps.shape[1:]
    factor = min(1.0, THUMBNAIL / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return np.asarray(adaptive_avg_pool2d(maps, size)[0].numpy())


def _jpeg(picture: Image.Image) -> bytes:
    picture = picture.convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85, subsampling=0)
    return buffer.getvalue()
