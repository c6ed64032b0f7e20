"""`python -m benchmarks --only text`: transformers at several lengths, beside the bare pass to the embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from benchmarks.rows import Row
from benchmarks.run import Line, measured
from benchmarks.text_cases import TextCase
from benchmarks.text_rows import TEXT_ROWS

_LONGEST = 128  # tokens at which rows of minutes run unless asked for

Plan = Mapping[tuple[str, int], Sequence[Row]]  # (network, tokens) -> its rows


def plan(
    networks: Sequence[str], tokens: Sequence[int], names: Sequence[str] = (), long: bool = False, alone: bool = False
) -> Plan:
    """The rows whose name holds one of `names` (none: all), where they run; alone: without the peers."""
    wanted = [row for row in TEXT_ROWS if not names or any(name in row.name for name in names)]
    wanted = [replace(row, peers={}) for row in wanted] if alone else wanted
    return {
        (network, n): rows
        for network in networks
        for n in tokens
        if (rows := [row for row in wanted if row.runs_on(network) and (long or not row.long or n <= _LONGEST)])
    }


def text_lines(planned: Plan, repeats: int = 5, device: torch.device | None = None) -> Iterator[Line]:
    """The lines of the table, case by case."""
    for (network, n), rows in planned.items():
        case = TextCase(network, n, device or torch.device("cpu"))
        for row in rows:
            yield measured(row, case, repeats)
