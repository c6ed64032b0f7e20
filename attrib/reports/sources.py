"""Where inputs come from: folders, globs, tables, standard input; each as a stream of records in a fixed order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from attrib.errors import InputError
from attrib.reports.arrow_tables import arrow_files
from attrib.reports.spec import COLUMNS, FORMATS, Spec
from attrib.reports.tables import read_table

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"}) | frozenset(
    {".tif", ".tiff", ".mpo", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"}
)
_FORMAT_OF = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "lines",
    "": "lines",
}
# what a column is called where the spec does not say: the first of these that is there
_USUAL = {"text": ("text",), "path": ("path", "image"), "target": ("target",), "id": ("id",)}


@dataclass(frozen=True)
class Record:
    """One input before its content is read. name: what to call it.

    source: where it comes from, for people, below `root_of` the inputs: a report tells nobody how its machine is laid
    out. The manifest has the whole path of the inputs.
    """

    name: str
    source: str
    text: Any = None
    path: str | None = None
    data: bytes | None = None
    target: Any = None
    error: str | None = None


def records(spec: Spec, kind: str, stdin: BinaryIO | None = None, out: Path | None = None) -> Iterator[Record]:
    """The inputs of `spec` for models of `kind`, in a fixed order; pictures inside the folder `out` are not.

    Raises InputError where there is nothing to read: no such file, no images in the folder, no such column.
    """
    form = format_of(spec)
    if form == "images":
        if kind == "text":
            raise InputError(f"{spec.inputs!r} holds images and the models take text; give lines or a table of texts")
        some = f"a folder is searched for files ending in {', '.join(sorted(IMAGE_SUFFIXES))}"
        return _or_nothing(_images(spec, out), f"{spec.inputs!r} holds no images; {some}")
    table = read_table(spec.inputs, form, stdin)
    columns = _columns(spec, kind, table.known) if table.known else {}
    rows = table.rows(list(dict.fromkeys(columns.values())))
    found = (_record(spec, columns, place, cells) for place, cells in rows)
    return _or_nothing(found, f"{spec.inputs!r} holds no inputs: it is empty")


def root_of(inputs: str) -> str:
    """What paths are told relative to: a folder itself, the folder of a file, a glob's part before its patterns."""
    if os.path.isdir(inputs):
        return inputs
    folder = os.path.dirname(inputs)
    while glob.has_magic(folder) and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder or os.curdir


def below_root(spec: Spec, path: str) -> str:
    """`path` as it is told: relative to the root of the inputs; of standard input as it was given."""
    return path if spec.inputs == "-" else os.path.relpath(path, root_of(spec.inputs))


def format_of(spec: Spec) -> str:
    """What the source is: one of FORMATS but "auto". Raises InputError where there is nothing of that name."""
    path = Path(spec.inputs)
    if spec.format != "auto":
        return spec.format
    if spec.inputs == "-":
        return "lines"
    if path.is_dir():
        return "arrow" if arrow_files(path) else "images"
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix not in _FORMAT_OF and suffix not in IMAGE_SUFFIXES:
            raise InputError(f"cannot tell what {spec.inputs!r} holds; say it: --format, {', '.join(FORMATS[1:])}")
        return _FORMAT_OF.get(suffix, "images")
    if glob.has_magic(spec.inputs):
        return "images"
    raise InputError(f"there is no file or folder {spec.inputs!r}")


def _or_nothing(found: Iterator[Record], message: str) -> Iterator[Record]:
    first = next(found, None)
    if first is None:
        raise InputError(message)
    yield first
    yield from found


def _images(spec: Spec, out: Path | None) -> Iterator[Record]:
    for file in _image_files(spec.inputs, None if out is None else os.path.realpath(out)):
        name = below_root(spec, file)
        yield Record(name, name, path=file)


def _image_files(inputs: str, passed_over: str | None) -> Iterator[str]:
    if os.path.isfile(inputs):
        yield inputs
    elif os.path.isdir(inputs):
        yield from _files_in(inputs, passed_over)
    else:
        for file in sorted(glob.glob(inputs, recursive=True)):
            inside = passed_over is not None and Path(os.path.realpath(file)).is_relative_to(passed_over)
            if os.path.isfile(file) and not inside:
                yield file


def _files_in(folder: str, passed_over: str | None) -> Iterator[str]:
    """Image files below `folder`; the names of one folder at a time are held, and links to folders not followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise InputError(f"cannot read the folder {folder!r}: {error.strerror}") from error
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if os.path.realpath(entry.path) != passed_over:
                yield from _files_in(entry.path, passed_over)
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
            yield entry.path


def _columns(spec: Spec, kind: str, known: list[str]) -> dict[str, str]:
    """text or path, target, id → the column's name in the table. InputError where one that is needed is not there."""
    content, other = ("text", "path") if kind == "text" else ("path", "text")
    found: dict[str, str] = {}
    for name in (part for part in COLUMNS if part != other):
        wanted = (spec.columns[name],) if name in spec.columns else _USUAL[name]
        there = [column for column in wanted if column in known]
        if not there and (name == content or name in spec.columns):
            raise InputError(
                f"{spec.inputs!r} has no column {' or '.join(map(repr, wanted))} for the {name}, its columns are "
                f"{', '.join(map(repr, known[:30]))}: say which one it is with --{name}-column"
            )
        if there:
            found[name] = there[0]
    return found


def _record(spec: Spec, columns: dict[str, str], place: str, cells: Any) -> Record:
    source = f"{'standard input' if spec.inputs == '-' else os.path.basename(spec.inputs)}, {place}"
    if isinstance(cells, InputError):
        return Record(place, source, error=str(cells))
    values = {name: cells.get(column) for name, column in columns.items()}
    path, data = _picture_in(values.get("path"))
    own = values.get("id")
    name = str(own) if own not in (None, "") else path or place
    beside = _beside(spec.inputs, path)
    return Record(name, source, values.get("text"), beside, data, values.get("target"))


def _picture_in(value: Any) -> tuple[str | None, bytes | None]:
    """(path, bytes) in a column: a path, bytes, or a picture of a Hugging Face data set, which is both."""
    if isinstance(value, dict):
        return value.get("path"), value.get("bytes")
    if isinstance(value, bytes):
        return None, value
    return (None if value is None else str(value)), None


def _beside(table: str, path: str | None) -> str | None:
    """Paths in a table are relative to its folder."""
    folder = "" if table == "-" else table if os.path.isdir(table) else os.path.dirname(table)
    return os.path.join(folder, path) if path else None
