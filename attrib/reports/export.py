"""All rows as one Parquet file and as one CSV file, written row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attrib.metrics.evidence import LIGHTS
from attrib.reports.evidence import LIGHTS as ALL_LIGHTS
from attrib.reports.files import harmless, replacing
from attrib.reports.records import Row
from attrib.reports.store import Store

PARQUET, CSV = "results.parquet", "results.csv"
_ROWS_AT_ONCE = 512

_TOP = pa.struct(
    [
        ("word", pa.string()),
        ("box", pa.list_(pa.int32())),
        ("relevance", pa.float64()),
        ("share", pa.float64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("name", pa.string()),
        ("item", pa.string()),
        ("source", pa.string()),
        ("text", pa.string()),
        ("model", pa.string()),
        ("method", pa.string()),
        ("target", pa.string()),
        ("prediction", pa.string()),
        ("prediction_index", pa.int64()),
        ("probability", pa.float64()),
        ("target_label", pa.string()),
        ("target_index", pa.int64()),
        ("score", pa.float64()),
        ("delta", pa.float64()),
        ("relative_delta", pa.float64()),
        ("ledger", pa.list_(pa.struct([("name", pa.string()), ("amount", pa.float64())]))),
        ("top", pa.list_(_TOP)),
        ("notes", pa.list_(pa.string())),
        ("uncovered", pa.list_(pa.string())),
        ("error", pa.string()),
        ("values", pa.string()),
        ("picture", pa.string()),
        ("input_hash", pa.string()),
        ("seconds", pa.float64()),
        ("memory", pa.int64()),
    ]
)


def schema_of(store: Store) -> pa.Schema:
    """The columns of this report: those of every one, and what its spec wants measured.

    A metric METRIC has the columns METRIC and METRIC_random, the mean of random maps; a light its verdict and _value.
    """
    asked = store.manifest["spec"].get("evidence", [])
    fields = [(name, pa.string() if words else pa.float64()) for name, words in _evidence_columns(asked)]
    return pa.schema([*SCHEMA, *map(pa.field, *zip(*fields, strict=True))]) if fields else SCHEMA


def _evidence_columns(asked: list[str]) -> list[tuple[str, bool]]:
    """(column, whether it holds words)."""
    found = [(name, random) for name in asked if name != ALL_LIGHTS for random in ("", "_random")]
    lights = [(_column(name), value) for name in LIGHTS for value in ("", "_value")] if asked else []
    return [(name + random, False) for name, random in found] + [(name + v, not v) for name, v in lights]


def _column(light: str) -> str:
    return "light_" + light.replace(" ", "_")


def export(store: Store) -> dict[str, int]:
    """Write results.parquet and results.csv; what was counted on the way, for the manifest."""
    schema = schema_of(store)
    counts = dict.fromkeys(("inputs", "items", "rows", "failed_inputs", "failed_rows"), 0)
    with ExitStack() as stack:
        parquet = _Parquet(stack, store.folder / PARQUET, schema)
        sheet = _sheet(stack, store.folder / CSV, schema)
        for _, rows in store.entries():
            counts["inputs"] += 1
            counts["rows"] += len(rows)
            failed = sum(row.failed for row in rows)
            counts["failed_rows"] += failed
            counts["failed_inputs"] += bool(failed)
            for row in map(partial(_record, schema), rows):
                parquet.add(row)
                sheet.writerow([_cell(row[name]) for name in schema.names])
        parquet.flush()
    counts["items"] = store.journal.count_items()
    return counts


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of results.parquet as dicts, in their order."""
    with pq.ParquetFile(folder / PARQUET) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            yield from batch.to_pylist()


class _Parquet:
    def __init__(self, stack: ExitStack, path: Path, schema: pa.Schema) -> None:
        unfinished = stack.enter_context(replacing(path))
        self._schema = schema
        self._writer = stack.enter_context(pq.ParquetWriter(unfinished, schema, compression="zstd"))
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows = []


def _sheet(stack: ExitStack, path: Path, schema: pa.Schema) -> Any:
    unfinished = stack.enter_context(replacing(path))
    file = stack.enter_context(unfinished.open("w", encoding="utf-8", newline=""))
    sheet = csv.writer(file)
    sheet.writerow(schema.names)
    return sheet


def _record(schema: pa.Schema, row: Row) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in SCHEMA.names if hasattr(row, name)}
    own |= dict.fromkeys(schema.names[len(SCHEMA.names) :]) | _evidence(row)
    relative = None if row.delta is None or row.score is None else abs(row.delta) / max(abs(row.score), 1e-12)
    ledger = [{"name": name, "amount": amount} for name, amount in row.ledger.items()]
    index = row.predictions[0][1] if row.predictions else None
    return own | {"relative_delta": relative, "ledger": ledger, "prediction_index": index}


def _evidence(row: Row) -> dict[str, Any]:
    metrics, lights = row.evidence.get("metrics", {}), row.evidence.get("lights", ())
    found: dict[str, Any] = {name: score["value"] for name, score in metrics.items()}
    found |= {f"{name}_random": score["random"] for name, score in metrics.items()}
    found |= {_column(light["name"]): light["verdict"] for light in lights}
    return found | {f"{_column(light['name'])}_value": light["value"] for light in lights}


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula; lists as short text."""
    if isinstance(value, (list, tuple)):
        value = "; ".join(_short(part) for part in value)
    return harmless(value) if isinstance(value, str) else value


def _short(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    return ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in part.values())
