"""Results of texts as tables for a terminal. Tokens are untrusted: nothing in them may act on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.table import Table
from rich.text import Text

from attrib.attribution import Attribution
from attrib.render.scale import OWN, Scale, number
from attrib.render.tokens import ink, readable, token_scales


def token_table(results: Mapping[str, Attribution], sample: int = 0) -> Table:
    """A row per token, a column per method, each coloured on a scale of its own."""
    table = Table("token", box=None)
    columns = []
    for name, result in results.items():
        table.add_column(name, justify="right")
        (scale,) = token_scales([(result, sample)], OWN)
        columns.append(_coloured(result.values[sample].detach().float().cpu().numpy(), scale))
    texts = next(iter(results.values())).token_texts or ((),)
    for i, text in enumerate(texts[sample]):
        table.add_row(Text(readable(text)), *(column[i] for column in columns))
    return table


def ledger_line(result: Attribution, sample: int = 0) -> str:
    """Where the score went, in one line; empty without a ledger."""
    if not result.ledger:
        return ""
    parts = ", ".join(f"{name} {_signed(float(amount[sample]))}" for name, amount in result.ledger.items())
    return f"score {_signed(float(result.score[sample]))} = {parts}"


def _coloured(values: np.ndarray, scale: Scale) -> list[Text]:
    backs = scale.colour(values).tolist()
    return [
        Text(_signed(float(value)), style=f"{ink(back)} on #{back[0]:02x}{back[1]:02x}{back[2]:02x}")
        for value, back in zip(values, backs, strict=True)
    ]


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"
