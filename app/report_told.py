"""What a report that has ended is told to visitors, in a sentence."""

from __future__ import annotations

from itertools import groupby, islice
from typing import Any

FAILURES_TOLD = 5


def failures(made: Any) -> dict[str, str]:
    """The first inputs that failed, with the reason."""
    by_input = (next(rows) for _, rows in groupby(made.failures(), lambda row: row.position))
    return {row.name: row.error for row in islice(by_input, FAILURES_TOLD)}


def summary(made: Any, failed: dict[str, str]) -> str:
    """How many maps there are, and which inputs failed. failed: of those, some with their reasons."""
    counts = made.counts
    maps = counts["rows"] - counts["failed_rows"]
    told = f"{_several(counts['inputs'], 'input')}, {_several(maps, 'map')}"
    if not made.failed:
        return told
    reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
    more = f" and {made.failed - len(failed)} more" if made.failed > len(failed) else ""
    return f"{told}; {_several(made.failed, 'input')} failed: {reasons}{more}"


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def for_visitors(sentence: str, place: str, name: str) -> str:
    """Without the server's paths, and with what a visitor can do instead of what the command line can."""
    told = sentence.replace(f"{place}/report", name).replace(place, name)
    return told.replace("choose another folder with --out, or delete that one first", "delete it, or take another name")
