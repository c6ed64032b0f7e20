"""What visitors upload for a report: pictures, or one table of texts; bounded before anything is kept of it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attrib
from app.report_asks import ReportAsk

# ending → what `attrib.report` calls it
TABLES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "lines"}
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
LONGEST_NAME = 200


@dataclass(frozen=True)
class Upload:
    """A file as it was uploaded. path: the server's copy; name: what the visitor's machine calls it, for show alone."""

    path: str
    name: str

    @property
    def ending(self) -> str:
        return os.path.splitext(self.name)[1].lower()

    @property
    def form(self) -> str:
        """csv, tsv, jsonl or lines; "" for what is no table."""
        return TABLES.get(self.ending, "")


@dataclass(frozen=True)
class Limits:
    """inputs: of one report. upload, disk: bytes, of one report's uploads and of all reports."""

    inputs: int
    upload: int
    disk: int


def uploads_of(payload: Any) -> list[Upload]:
    """The files of a file input as the page sent them."""
    files = payload if isinstance(payload, list) else [payload] if payload else []
    found = [file for file in files if isinstance(file, dict) and file.get("path")]
    return [Upload(str(f["path"]), str(f.get("orig_name") or Path(f["path"]).name)[-LONGEST_NAME:]) for f in found]


def table_of(uploads: Sequence[Upload]) -> Upload | None:
    """The one table among the uploads. Raises InputError where there are several, or pictures beside it."""
    tables = [upload for upload in uploads if upload.form]
    if tables and len(uploads) > 1:
        raise attrib.InputError(f"{tables[0].name!r} holds texts: upload it alone, without other files")
    return tables[0] if tables else None


def check(uploads: Sequence[Upload], ask: ReportAsk, limits: Limits) -> int:
    """How many inputs there are. Raises InputError for none, too many, too large, or the wrong kind for the model."""
    if not uploads:
        raise attrib.InputError("choose files first: pictures, or one CSV, JSONL or text file")
    gone = [upload.name for upload in uploads if not os.path.isfile(upload.path)]
    if gone:
        raise attrib.InputError(f"{gone[0]!r} is no longer on the server: upload it again")
    size = sum(os.path.getsize(upload.path) for upload in uploads)
    if size > limits.upload:
        raise attrib.InputError(
            f"the files have {size / 2**20:.1f} MB together, more than the limit of {limits.upload // 2**20} MB"
        )
    table = table_of(uploads)
    if ask.kind == "text" and table is None:
        raise attrib.InputError(f"{ask.model} takes texts: upload one file ending in {', '.join(TABLES)}")
    if ask.kind == "image" and table is not None:
        raise attrib.InputError(f"{ask.model} takes pictures, and {table.name!r} holds texts: choose a model for texts")
    number = len(uploads) if table is None else _rows_of(table, ask)
    if number > limits.inputs:
        raise attrib.InputError(f"{number} inputs are more than the limit of {limits.inputs} in one report")
    return number


def columns_of(table: Upload) -> list[str]:
    """The names of a table's columns; [] for lines of text. Raises InputError for a table without any."""
    if table.form == "lines":
        return []
    first: Any = next(_rows(table), None)
    if first is None:
        raise attrib.InputError(f"{table.name!r} is empty")
    if table.form == "jsonl":
        try:
            first = list(json.loads(first))
        except (ValueError, TypeError, RecursionError):
            raise attrib.InputError(f"{table.name!r} is not JSONL: its first line is no object") from None
    return [str(name) for name in first][:1000]


def _rows_of(table: Upload, ask: ReportAsk) -> int:
    """How many texts a table holds. Raises InputError for columns that it has not."""
    known = columns_of(table)
    for name in ask.columns.values():
        if name not in known:
            told = ", ".join(repr(column[:60]) for column in known[:20]) or "none: it is read line by line"
            raise attrib.InputError(f"{table.name!r} has no column {name[:60]!r}; its columns are {told}")
    number = sum(1 for _ in _rows(table)) - (table.form in ("csv", "tsv"))
    if number < 1:
        raise attrib.InputError(f"{table.name!r} holds no texts")
    return number


def _rows(table: Upload) -> Iterator[Any]:
    """Rows that hold anything, one at a time: lists of cells of CSV and TSV, else lines."""
    with open(table.path, encoding="utf-8-sig", errors="replace", newline="") as file:
        if table.form not in ("csv", "tsv"):
            yield from (line for line in file if line.strip())
            return
        reader = csv.reader(file, delimiter="," if table.form == "csv" else "\t")
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                row = ["broken"]
            if row:
                yield row


def placed(uploads: Sequence[Upload], folder: Path) -> tuple[tuple[str, str, str], ...]:
    """Put the files into `folder` under names of our own; (file, its name, sha256) of each."""
    found = []
    for number, upload in enumerate(uploads):
        ending = upload.ending if upload.ending in (*_PICTURES, *TABLES) else ""
        path = folder / f"{number:06d}{ending}"
        try:
            os.link(upload.path, path)  # the upload itself is deleted with the page's other files
        except OSError:
            shutil.copyfile(upload.path, path)
        with path.open("rb") as file:
            found.append((path.name, upload.name, hashlib.file_digest(file, "sha256").hexdigest()))
    return tuple(found)
