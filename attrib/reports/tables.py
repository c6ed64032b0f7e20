"""Tables of inputs as streams of rows: lines, CSV, JSONL, Parquet, Arrow; a broken row is an error in its place."""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, BinaryIO

from attrib.errors import InputError
from attrib.reports.arrow_tables import arrow_table, parquet_table
from attrib.reports.rows import AT_ONCE, Cells, Table

MAX_LINE = 16 * 2**20  # bytes


def read_table(path: str, form: str, stdin: BinaryIO | None = None) -> Table:
    """The table in the file or folder `path` ("-": standard input) of the format `form`."""
    return _READERS[form](path, stdin)


@contextmanager
def _opened(path: str, stdin: BinaryIO | None) -> Iterator[BinaryIO]:
    if path == "-":
        yield stdin or sys.stdin.buffer
        return
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror or error}") from error


def _lines(path: str, stdin: BinaryIO | None) -> Iterator[tuple[str, str | InputError]]:
    """Lines of UTF-8 without their ends; empty ones are passed over."""
    with _opened(path, stdin) as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            place = f"line {number}"
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                while rest := file.readline(MAX_LINE):
                    if rest.endswith(b"\n"):
                        break
                yield place, InputError(f"the line is longer than {MAX_LINE // 2**20} MB")
                continue
            text = _decoded(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
            if isinstance(text, InputError) or text.strip():
                yield place, text


def _decoded(line: bytes) -> str | InputError:
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        return InputError(f"the line is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}")


def _line_table(path: str, stdin: BinaryIO | None) -> Table:
    def rows(columns: list[str]) -> Iterator[Cells]:
        for place, line in _lines(path, stdin):
            yield place, line if isinstance(line, InputError) else {"text": line, "path": line}

    return Table(["text", "path"], rows)


def _json_table(path: str, stdin: BinaryIO | None) -> Table:
    found = ((place, _object(line)) for place, line in _lines(path, stdin))
    first = list(islice(found, AT_ONCE))
    objects = [cells for _, cells in first if isinstance(cells, dict)]
    if first and not objects:
        raise InputError(f"{path!r} is not JSONL: {first[0][0]}: {first[0][1]}")
    known = list(dict.fromkeys(name for cells in objects for name in cells))
    return Table(known, lambda columns: chain(first, found))


def _object(line: str | InputError) -> dict[str, Any] | InputError:
    if isinstance(line, InputError):
        return line
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return InputError(f"the line is not JSON: {error}")
    return value if isinstance(value, dict) else InputError(f"the line holds {type(value).__name__}, not an object")


def _csv_table(path: str, stdin: BinaryIO | None, delimiter: str = ",") -> Table:
    found = _csv_rows(path, stdin, delimiter)
    header = next(found, None)
    if header is None:
        raise InputError(f"{path!r} is empty: a first row with the columns' names is needed")
    known = header[1]
    if isinstance(known, InputError):
        raise InputError(f"{path!r} has no readable first row: {known}")

    def rows(columns: list[str]) -> Iterator[Cells]:
        for place, cells in found:
            if isinstance(cells, InputError):
                yield place, cells
            elif len(cells) != len(known):
                yield place, InputError(f"the row has {len(cells)} cells where {len(known)} are needed")
            else:
                yield place, dict(zip(known, cells, strict=True))

    return Table(known, rows)


def _csv_rows(path: str, stdin: BinaryIO | None, delimiter: str) -> Iterator[tuple[str, list[str] | InputError]]:
    with _opened(path, stdin) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield f"line {reader.line_num}", InputError(f"the row is broken: {error}")
                    continue
                if cells:
                    yield f"line {reader.line_num}", cells
        finally:
            text.detach()  # the file, standard input above all, is closed by whoever opened it


_READERS: dict[str, Callable[[str, BinaryIO | None], Table]] = {
    "lines": _line_table,
    "csv": _csv_table,
    "tsv": lambda path, stdin: _csv_table(path, stdin, "\t"),
    "jsonl": _json_table,
    "parquet": lambda path, stdin: parquet_table(path),
    "arrow": lambda path, stdin: arrow_table(path),
}
