"""The two files of an item, made while the computation goes on: its page, and its summary for the end of the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrib.attribution import Attribution
from attrib.errors import ReportError
from attrib.reports.evidence import Maps
from attrib.reports.files import write_files
from attrib.reports.item_page import render_item
from attrib.reports.store import Input, Row, Store, digest
from attrib.reports.summary import Summary


def page_path(item: str) -> str:
    """Where the page of an item is, inside the report's folder."""
    return f"items/{item}.html"


def summary_path(item: str) -> str:
    """Where the summary of an item is, inside the report's folder."""
    return f"summaries/{item}.safetensors"


def entry_files(
    it: Input, rows: Sequence[Row], attributions: Sequence[Attribution | None], compared: Sequence[Maps]
) -> dict[str, bytes]:
    """Path inside the report → content, a pure function.

    rows: all of the input's. attributions: for each row its result, a batch of one; None where it failed.
    compared: for each row the maps that its evidence compared it with.
    """
    return {
        page_path(it.item): render_item(it, rows, attributions, compared),
        summary_path(it.item): Summary.of(rows, attributions).to_bytes(),
    }


def stored_entry_files(store: Store, it: Input, rows: Sequence[Row]) -> dict[str, bytes]:
    """The same of what the store holds."""
    attributions = [None if row.failed else store.attribution(row) for row in rows]
    return entry_files(it, rows, attributions, [store.compared(row) for row in rows])


def current_summary(store: Store, it: Input, rows: list[Row]) -> Summary:
    """The item's summary as it was written; where it is missing or older than its rows both files are written anew."""
    if (summary := _written(store, it, rows)) is not None:
        return summary
    made = stored_entry_files(store, it, rows)
    write_files(store.folder, made)
    return Summary.from_bytes(made[summary_path(it.item)])


def write_entries(store: Store, entries: Iterable[tuple[Input, list[Row]]]) -> None:
    """The files of several items, those of a batch, where they are missing or old."""
    files: dict[str, bytes] = {}
    for it, rows in entries:
        if _written(store, it, rows) is None:
            files |= stored_entry_files(store, it, rows)
    write_files(store.folder, files)


def _written(store: Store, it: Input, rows: list[Row]) -> Summary | None:
    try:
        summary = Summary.from_bytes((store.folder / summary_path(it.item)).read_bytes())
    except (OSError, ReportError):
        return None
    return summary if summary.digest == digest(rows) and (store.folder / page_path(it.item)).exists() else None
