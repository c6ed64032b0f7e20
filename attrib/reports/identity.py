"""Are two reports the same? The hash of every file, less what differs from run to run: times, memory, the machine."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from attrib.reports.export import CSV, PARQUET
from attrib.reports.records import MEASURED
from attrib.reports.store import JOURNAL, LOCK, MANIFEST

_TIMES = re.compile(rb"<dt>(?:time|peak memory|created|started)</dt>\s*<dd>.*?</dd>", re.DOTALL)


def contents(folder: str | Path) -> dict[str, str]:
    """Path inside the report → hash of what every run of the same spec on the same machine writes there.

    Left out: the columns seconds and memory of the tables, times and machine of the manifest, the same in the pages;
    and the journal, whose layout tells in which order things were finished.
    """
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    named = {path.relative_to(root).as_posix(): path for path in files}
    return {name: _hash(name, path) for name, path in named.items() if name not in (LOCK, JOURNAL)}


def _hash(name: str, path: Path) -> str:
    reading = {PARQUET: _parquet, CSV: _sheet, MANIFEST: _manifest}.get(name, _page if path.suffix == ".html" else None)
    content = path.read_bytes() if reading is None else reading(path)
    return hashlib.sha256(content).hexdigest()


def _parquet(path: Path) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path).drop_columns(list(MEASURED))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def _sheet(path: Path) -> bytes:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [[row[name] for name in row if name not in MEASURED] for row in csv.DictReader(file)]
    return json.dumps(rows).encode()


def _manifest(path: Path) -> bytes:
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps({name: value for name, value in manifest.items() if name not in ("machine", "times")}).encode()


def _page(path: Path) -> bytes:
    return _TIMES.sub(b"", path.read_bytes())
