"""How well two lists of numbers agree: Pearson's r, Spearman's rank correlation, and their bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_DRAWS = 2000  # of the bootstrap


class Coefficient(NamedTuple):
    """A correlation and its bootstrap percentile interval; NaN where one of the two lists does not vary."""

    value: float
    low: float
    high: float


def pearson(a: Tensor, b: Tensor) -> float:
    """Pearson's r of two lists; NaN for less than two entries, and where one of them does not vary."""
    return float(_pearson(a.cpu().double()[None], b.cpu().double()[None])) if len(a) > 1 else math.nan


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation: Pearson's r of the ranks, equal entries sharing theirs."""
    return float(_spearman(a.cpu().double()[None], b.cpu().double()[None])) if len(a) > 1 else math.nan


def with_interval(rank: bool, a: Tensor, b: Tensor, confidence: float, seed: int) -> Coefficient:
    """The correlation (of ranks or not) with the percentile interval over entries drawn again with replacement.

    Draws in which one list does not vary have no correlation and are left out.
    """
    of: Callable[[Tensor, Tensor], Tensor] = _spearman if rank else _pearson
    a, b = a.cpu().double(), b.cpu().double()
    value = float(of(a[None], b[None])) if len(a) > 1 else math.nan
    if math.isnan(value):
        return Coefficient(math.nan, math.nan, math.nan)
    drawn = torch.randint(len(a), (_DRAWS, len(a)), generator=torch.Generator().manual_seed(seed))
    again = of(a[drawn], b[drawn])
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=again.dtype)
    low, high = torch.quantile(again[again.isfinite()], tails).tolist()
    return Coefficient(value, low, high)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """(rows,) of two tables (rows, entries)."""
    vary = (a.amax(1) > a.amin(1)) & (b.amax(1) > b.amin(1))
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    size = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(vary & (size > 0), (a * b).sum(1) / size, torch.nan)


def _spearman(a: Tensor, b: Tensor) -> Tensor:
    return _pearson(_ranks(a), _ranks(b))


def _ranks(table: Tensor) -> Tensor:
    """Of each row: the mean of the ranks that an entry and its equals take."""
    table = table.contiguous()
    ordered = table.sort(1).values
    first = torch.searchsorted(ordered, table, right=False)
    behind = torch.searchsorted(ordered, table, right=True)
    return (first + behind - 1).to(table) / 2
