"""Outcomes as the files and journal entries that hold them: bytes, so that any process or machine can make them."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save as to_bytes

from attrib.reports.compute import Outcome
from attrib.reports.files import write_files
from attrib.reports.journal import Finished, Journal

VALUES, PICTURES = "values", "pictures"
RECENT = 256  # pictures; more than a batch has


@dataclass(frozen=True)
class Packed:
    """Journal entries, and the files (path inside the report → content) that must be on disk before them."""

    rows: list[Finished]
    files: dict[str, bytes]


def packed(outcome: Outcome, recent: deque[str]) -> Packed:
    """One file for all maps, one for each picture; called by hashes, so that the same outcome makes the same files.

    recent: names of pictures that were made lately, for other methods; those are not made again.
    """
    files: dict[str, bytes] = {}
    paths: dict[str, dict[str, str]] = {item: {} for item in outcome.tensors}
    if outcome.tensors:
        name = f"{VALUES}/{_hash(outcome.model, outcome.method, outcome.target, *sorted(outcome.tensors))}.safetensors"
        files[name] = to_bytes({f"{i}/{key}": t for i, own in outcome.tensors.items() for key, t in own.items()})
        paths = {item: {"values": name} for item in outcome.tensors}
    for item, picture in outcome.pictures.items():
        name = f"{PICTURES}/{hashlib.sha256(str(picture.shape).encode() + picture.tobytes()).hexdigest()[:24]}.png"
        paths[item]["picture"] = name
        if name not in recent:
            files[name] = _png(picture)
            recent.append(name)
    rows = [row._replace(found=row.found | paths.get(row.key.item, {})) for row in outcome.rows]
    return Packed(rows, files)


def store(folder: Path, journal: Journal, parts: Iterable[Packed]) -> int:
    """Write the files, then enter the rows all at once; the number of rows."""
    rows: list[Finished] = []
    files: dict[str, bytes] = {}
    for part in parts:
        rows += part.rows
        for name, content in part.files.items():
            if not (name.startswith(PICTURES) and (folder / name).exists()):  # other methods share the picture
                files[name] = content
    write_files(folder, files)
    journal.add(rows)
    return len(rows)


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:24]
