"""What every kind of table of inputs gives: its columns' names and a stream of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from attrib.errors import InputError

AT_ONCE = 64  # rows that are looked at, or decoded, together

Cells = tuple[str, dict[str, Any] | InputError]  # where, "line 3"; the columns, or why they cannot be read


@dataclass(frozen=True)
class Table:
    """known: the columns' names. rows(columns): a stream of rows with at least these of the columns."""

    known: list[str]
    rows: Callable[[list[str]], Iterator[Cells]]
