"""`python -m benchmarks --only text`: transformers at several lengths, beside the bare pass to the embeddings."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.run import Line, measured
from benchmarks.text_cases import NETWORKS, TOKENS, TextCase
from benchmarks.text_rows import TEXT_ROWS

_LONGEST = 128  # tokens at which rows of minutes run unless asked for


def text_lines(
    networks: tuple[str, ...] = NETWORKS,
    tokens: tuple[int, ...] = TOKENS,
    names: tuple[str, ...] = (),
    repeats: int = 5,
    long: bool = False,
    device: torch.device | None = None,
) -> Iterator[Line]:
    """Rows whose name holds one of `names` (none: all), case by case."""
    for network in networks:
        for n in tokens:
            case = TextCase(network, n, device or torch.device("cpu"))
            for row in TEXT_ROWS:
                wanted = not names or any(name in row.name for name in names)
                applies = row.networks is None or network in row.networks
                if wanted and applies and (long or not row.long or n <= _LONGEST):
                    yield measured(row, case, repeats)
