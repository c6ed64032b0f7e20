"""The two files of an item, made while the computation goes on: its page, and its summary for the end of the report."""

from __future__ import annotations

from collections.abc import Sequence

from attrib.attribution import Attribution
from attrib.errors import ReportError
from attrib.reports.evidence import Maps
from attrib.reports.files import write_file
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
    try:
        summary = Summary.from_bytes((store.folder / summary_path(it.item)).read_bytes())
        if summary.digest == digest(rows) and (store.folder / page_path(it.item)).exists():
            return summary
    except (OSError, ReportError):
        pass
    made = stored_entry_files(store, it, rows)
    for path, content in made.items():
        write_file(store.folder / path, content)
    return Summary.from_bytes(made[summary_path(it.item)])
