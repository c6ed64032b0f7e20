"""An evaluation as files hold it: JSON with everything, and a table of its rows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from attrib.errors import InputError
from attrib.metrics.evaluation import Evaluation
from attrib.metrics.summary import Row

FORMAT_VERSION = 1


def document(found: Evaluation) -> dict[str, Any]:
    """Everything as JSON can hold it; a number that is none is null."""
    plain: dict[str, Any] = _plain(
        {
            "format": FORMAT_VERSION, "facts": found.facts, "notes": found.notes, "confidence": found.confidence,
            "better": found.better, "axes": found.axes, "axis_names": found.axis_names,
            "rows": [asdict(row) for row in found.rows],
            "reference_curves": [[*key, curve] for key, curve in found.reference_curves.items()],
            "agreement": [[*pair, *both] for pair, both in found.agreement.items()],
            "summary": [asdict(line) for line in found.summary()],
        }
    )  # fmt: skip
    return plain


def restored(document: dict[str, Any]) -> Evaluation:
    """What `document` wrote. Raises InputError, ValueError, KeyError or TypeError where it did not."""
    if document["format"] != FORMAT_VERSION:
        raise InputError(f"saved with format {document['format']}, this version reads format {FORMAT_VERSION}")
    rows = [
        Row(
            r["input"], r["method"], r["metric"], _number(r["value"]),
            {name: _number(v) for name, v in r["references"].items()}, r["words"], tuple(map(_number, r["curve"])),
        )
        for r in document["rows"]
    ]  # fmt: skip
    return Evaluation(
        rows=tuple(rows),
        better=document["better"],
        axes={name: tuple(at) for name, at in document["axes"].items()},
        axis_names=document["axis_names"],
        agreement={(a, b): (_number(r), _number(o)) for a, b, r, o in document["agreement"]},
        facts=document["facts"],
        reference_curves={(m, r): tuple(map(_number, c)) for m, r, c in document["reference_curves"]},
        confidence=document["confidence"],
        notes=tuple(document["notes"]),
    )


def table(rows: Sequence[Row]) -> str:
    """CSV, a line per row: input, method, metric, value, a column per reference, words."""
    names = list(dict.fromkeys(name for row in rows for name in row.references))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["input", "method", "metric", "value", *names, "words"])
    for row in rows:
        references = [row.references.get(name, math.nan) for name in names]
        writer.writerow([row.input, row.method, row.metric, row.value, *references, row.words])
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
