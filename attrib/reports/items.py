"""The inputs of a report, one by one, as they stream from the source; called by the hash of what they hold."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from attrib.errors import InputError
from attrib.models.images import MAX_FILE_BYTES
from attrib.reports.records import Input
from attrib.reports.sources import Record, below_root, records
from attrib.reports.spec import Spec

MAX_TEXT = 200_000  # characters; no model here takes a tenth of it
_SHOWN = 200  # characters of a name


@dataclass(frozen=True)
class Item:
    """An input with its content. data: the bytes of an image file, None for texts. error: why it cannot be read."""

    input: Input
    data: bytes | None = None
    error: str | None = None

    @property
    def id(self) -> str:
        return self.input.item

    @property
    def length(self) -> int:
        """What inputs of one batch should have in common: the characters of a text; pictures are resized anyway."""
        return len(self.input.text or "")


def items(spec: Spec, kind: str, stdin: BinaryIO | None = None, out: Path | None = None) -> Iterator[Item]:
    """Every input of `spec`, as "image" or "text" inputs of the models, in a fixed order; the folder `out` is none."""
    for position, record in enumerate(islice(records(spec, kind, stdin, out), spec.limit)):
        yield _item(position, record, kind, spec)


def count(spec: Spec, kind: str, out: Path | None = None) -> int | None:
    """How many inputs there will be; None for standard input, which is read only once."""
    if spec.inputs == "-":
        return None
    return sum(1 for _ in islice(records(spec, kind, None, out), spec.limit))


def _item(position: int, record: Record, kind: str, spec: Spec) -> Item:
    error, text, data = record.error, None, None
    try:
        if error is None and kind == "text":
            text = _text_of(record.text)
        elif error is None:
            data = record.data if record.data is not None else _bytes_of(record.path, spec)
    except InputError as problem:
        error, text, data = str(problem), None, None
    name = printable(record.name) or f"input {position}"
    content = data if data is not None else (text or "").encode()
    unreadable = f"{printable(record.name)}\n{printable(error)}".encode() if error is not None else b""
    target = _target_of(record.target)
    item = _hash(kind.encode(), repr(target).encode(), unreadable, content)
    source = printable(record.source, 4 * _SHOWN)
    return Item(Input(position, item, name, kind, source, text, target), data, error)


def printable(text: str, longest: int = _SHOWN) -> str:
    """`text` without lone surrogates (bytes of a file name that are no UTF-8 show as \\udcXX), cut to `longest`."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"


def _text_of(text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f"the text is {type(text).__name__} {text!r:.50}, not text")
    if not text.strip():
        raise InputError("the text is empty")
    if len(text) > MAX_TEXT:
        raise InputError(f"the text has {len(text):,} characters, more than the limit of {MAX_TEXT:,}")
    if printable(text, len(text) * 6) != text:
        raise InputError("the text is not UTF-8")
    return text


def _bytes_of(path: str | None, spec: Spec) -> bytes:
    if not path:
        raise InputError("the path is empty")
    told = printable(below_root(spec, path))
    try:
        if spec.root is not None and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(spec.root)):
            raise InputError(f"{told!r} lies outside {printable(spec.root)!r}, the root that the spec sets")
        # a pipe or a device would never end: only files are opened
        if not Path(path).is_file():
            raise InputError(f"{told!r} is {'not a file' if Path(path).exists() else 'not there'}")
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {told!r}: {reason}") from error
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{told!r} is larger than the limit of {MAX_FILE_BYTES // 2**20} MB")
    return data


def _target_of(value: Any) -> str | int | None:
    if value is None or value == "" or value != value:  # NaN: a hole in a column of numbers
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else printable(str(value))


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:24]
