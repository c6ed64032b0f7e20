"""The ledger of one backward pass: where relevance goes that does not reach the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from attrib.rules.precision import wide


class Ledger:
    """Name → one amount per sample."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.amounts: dict[str, Tensor] = {}

    def absorb(self, name: str, amounts: Tensor) -> None:
        """Add relevance swallowed by one operation; amounts: (rows, …), rows a multiple of the batch.

        Of anything else nobody can tell whose it is: all samples get the same. See `of_each_sample`.
        """
        if amounts.dim() == 0 or amounts.shape[0] % self.batch != 0:
            amounts = amounts.sum().expand(self.batch) / self.batch
        total = wide(amounts.reshape(self.batch, -1).sum(1))
        self.amounts[name] = self.amounts[name] + total if name in self.amounts else total


def relevance_of(value: Any, c: Tensor) -> Tensor:
    """value·c, elementwise; of complex numbers what they add to a real score."""
    carried: Tensor = (c.conj() * value).real if c.is_complex() else c * value
    return carried


def booking(ledger: Ledger, name: str, constant: Any) -> Callable[[Tensor], None]:
    """A hook on a sum's output that books what its constant summand carries."""

    def book(c: Tensor) -> None:
        ledger.absorb(name, relevance_of(constant, c))

    return book
