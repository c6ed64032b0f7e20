"""The table of all items, in pages of two hundred, and the summary on the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attrib.reports.entry_files import page_path
from attrib.reports.pages import PER_PAGE, image_uri, index_path, reasons, rendered, script, short, streamed
from attrib.reports.store import Input, Row
from attrib.reports.summary import Summary

MAX_FOUND = 600  # characters of an item's name and text that the filter looks at
MOST_WORDS = 5
MOST_PREDICTIONS = 2000  # that the filter offers
ALL = "all.html"
LINKS = (
    ("dataset.html", "Over all items"),
    ("report.pdf", "PDF"),
    ("results.csv", "CSV"),
    ("results.parquet", "Parquet"),
    ("manifest.json", "Manifest"),
)  # a place for further pages


def table_row(it: Input, rows: list[Row], summary: Summary | None, agreement: float | None) -> dict[str, Any]:
    """What the table says of one input; without a summary it has no pictures."""
    good = [row for row in rows if not row.failed]
    first = good[0] if good else None
    failed = len(rows) - len(good)
    prediction = "" if first is None else first.prediction or ""
    explained = list(dict.fromkeys(str(row.target_label) for row in good if row.target_label is not None))
    text = "" if it.text is None or it.text == it.name else short(it.text, 120)
    return {
        "number": it.position + 1,
        "href": page_path(it.item),
        "name": short(it.name),
        "text": text,
        "thumbs": [] if summary is None else _thumbs(rows, summary),
        "words": _words(first) if it.kind == "text" else [],
        "prediction": prediction,
        "probability": None if first is None else first.probability,
        "probability_value": "" if first is None or first.probability is None else f"{first.probability:.6f}",
        "explained": "; ".join(explained),
        "agreement": "" if agreement is None else f"{agreement:.2f}",
        "agreement_value": "" if agreement is None else f"{agreement:.6f}",
        "state": "ok" if not failed else "failed" if not good else "partly failed",
        "reason": short("; ".join(reasons(rows)), 200) if failed else "",
        "find": " ".join((short(it.name), (it.text or "")[:MAX_FOUND], prediction, *explained)),
    }


def render_index(
    number: int, rows: Sequence[dict[str, Any]], total: int, title: str, summary: dict[str, Any] | None = None
) -> bytes:
    """Page `number` (from 0) of the table. summary: on the first page, `facts`, `warnings` and `provenance`."""
    first = number * PER_PAGE
    words = bool(rows) and all(not row["thumbs"] for row in rows) and any(row["words"] for row in rows)
    return rendered(
        "index.html",
        number=number,
        rows=rows,
        first=first + bool(rows),
        last=first + len(rows),
        here=index_path(number),
        pages=_pager(number, max(1, -(-total // PER_PAGE))),
        shown_as="Strongest words" if words else "Picture",
        drawn=_drawn(rows),
        compared=any(row["agreement"] for row in rows),
        predictions=sorted({row["prediction"] for row in rows} - {""}),
        states=sorted({row["state"] for row in rows}),
        **_common(total, title, summary or {}),
    )


def write_all(path: Path, rows: Iterator[dict[str, Any]], seen: Seen, total: int, title: str) -> None:
    """One table of all items, without pictures, for sorting and filtering over the whole report."""
    streamed(
        path,
        "index.html",
        number=0,
        rows=rows,
        first=1,
        last=total,
        here=ALL,
        pages=[],
        shown_as="Strongest words" if seen.words else "",
        drawn=[],
        compared=seen.compared,
        predictions=sorted(seen.predictions),
        states=sorted(seen.states),
        **_common(total, title, {}),
    )


@dataclass
class Seen:
    """What the heads of the whole table must know before its rows. predictions: at most MOST_PREDICTIONS of them."""

    predictions: set[str] = field(default_factory=set)
    states: set[str] = field(default_factory=set)
    words: bool = False
    compared: bool = False

    def add(self, row: dict[str, Any]) -> None:
        """A row of `table_row`."""
        self.states.add(row["state"])
        self.words |= bool(row["words"])
        self.compared |= bool(row["agreement"])
        if row["prediction"] and len(self.predictions) < MOST_PREDICTIONS:
            self.predictions.add(row["prediction"])


def _common(total: int, title: str, summary: dict[str, Any]) -> dict[str, Any]:
    code, code_hash = script()
    given = {"facts": [], "warnings": [], "provenance": []} | summary
    own = {"title": title, "total": total, "per_page": PER_PAGE, "links": LINKS, "code": code, "code_hash": code_hash}
    return own | given


def _thumbs(rows: list[Row], summary: Summary) -> list[tuple[str, str]]:
    if not summary.photo:
        return []
    maps = [(image_uri(t), f"{row.method}, {row.model}") for row, t in zip(rows, summary.thumbnails, strict=False) if t]
    return [(image_uri(summary.photo), "the picture as the model saw it"), *maps]


def _drawn(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Whose maps stand beside the pictures: the methods, and the models where there are several."""
    names = max(([name for _, name in row["thumbs"][1:]] for row in rows), key=len, default=[])
    pairs = [name.partition(", ") for name in names]
    several = len({model for _, _, model in pairs}) > 1
    return [f"{method} ({model})" if several else method for method, _, model in pairs]


def _words(row: Row | None) -> list[tuple[str, str]]:
    """The strongest words of the first result, with the class of their colour."""
    if row is None:
        return []
    special = {token for token, word in zip(row.tokens, row.words, strict=False) if word is None}
    parts = [p for p in row.top if any(c.isalnum() for c in str(p.get("word", ""))) and p["word"] not in special]
    parts = parts[:MOST_WORDS]
    return [(short(str(p["word"]), 24), "r-for" if p["relevance"] > 0 else "r-against") for p in parts]


def _pager(here: int, count: int) -> list[tuple[str, str]]:
    """(number, file) of the pages to offer: the first, the last, and those near; "…" and "" for a gap."""
    near = sorted({0, count - 1, *(n for n in range(here - 2, here + 3) if 0 <= n < count)})
    found: list[tuple[str, str]] = []
    for before, n in zip([-1, *near], near, strict=False):
        if n - before > 1:
            found.append(("…", ""))
        found.append((str(n + 1), index_path(n)))
    return found
