"""Parquet files, Arrow files and Hugging Face data sets on disk as streams of rows."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrib.errors import InputError, MissingExtra
from attrib.reports.rows import AT_ONCE, Cells, Table


def arrow_files(folder: Path) -> list[Path]:
    """The files of a Hugging Face data set saved in `folder`, every split of it; [] where there is none."""
    try:
        splits = json.loads((folder / "dataset_dict.json").read_text())["splits"]
    except (OSError, ValueError, KeyError, TypeError):
        splits = ["."]
    return [file for split in splits for file in sorted((folder / str(split)).glob("*.arrow"))]


def parquet_table(path: str) -> Table:
    parquet = _pyarrow("pyarrow.parquet")
    with _arrow_errors(path):
        file = parquet.ParquetFile(path)
        known = list(file.schema_arrow.names)
    return Table(known, lambda columns: _arrow_rows(path, file.iter_batches(AT_ONCE, columns=columns)))


def arrow_table(path: str) -> Table:
    files = arrow_files(Path(path)) if Path(path).is_dir() else [Path(path)]
    with _arrow_errors(path):
        known = list(_arrow_reader(files[0]).schema.names)

    def rows(columns: list[str]) -> Iterator[Cells]:
        batches = (small for file in files for batch in _batches(file) for small in _small(batch.select(columns)))
        return _arrow_rows(path, batches)

    return Table(known, rows)


def _arrow_reader(file: Path) -> Any:
    """Data sets are saved as streams; other programs write Arrow files."""
    arrow = _pyarrow("pyarrow")
    source = arrow.memory_map(str(file))
    try:
        return arrow.ipc.open_stream(source)
    except arrow.ArrowInvalid:
        source.seek(0)
        return arrow.ipc.open_file(source)


def _batches(file: Path) -> Iterator[Any]:
    reader = _arrow_reader(file)
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(reader)


def _small(batch: Any) -> Iterator[Any]:
    return (batch.slice(start, AT_ONCE) for start in range(0, batch.num_rows, AT_ONCE))


def _arrow_rows(path: str, batches: Iterator[Any]) -> Iterator[Cells]:
    number = 0
    with _arrow_errors(path):
        for batch in batches:
            for row in batch.to_pylist():
                yield f"row {number}", row
                number += 1


@contextmanager
def _arrow_errors(path: str) -> Iterator[None]:
    arrow = _pyarrow("pyarrow")
    try:
        yield
    except (arrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {path!r}: {error}") from error


def _pyarrow(name: str) -> Any:
    try:
        importlib.import_module("pyarrow.ipc")
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra("reading this needs pyarrow: pip install pyarrow") from error
