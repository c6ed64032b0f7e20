"""Effects averaged over pairs of prompts, with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.patching.effects import metric_of, sites_of

if TYPE_CHECKING:
    from attrib.attribution import Attribution

_DRAWS = 2000  # of the bootstrap
_MULTIPLIED_AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class MeanEffects:
    """Effects averaged over pairs whose positions mean the same.

    values, low, high: (site, position), the mean and its bootstrap percentile interval at `confidence` over `pairs`
    pairs. metric: name → (mean, low, high) of both runs' metric.
    """

    sites: tuple[str, ...]
    values: Tensor
    low: Tensor
    high: Tensor
    confidence: float
    pairs: int
    metric: dict[str, tuple[float, float, float]]

    def __str__(self) -> str:
        runs = ", ".join(f"{name} {m:.3f} [{a:.3f}, {b:.3f}]" for name, (m, a, b) in self.metric.items())
        return f"means over {self.pairs} pairs, {self.confidence:.0%} intervals: {runs}"


def mean(result: Attribution, confidence: float) -> MeanEffects:
    """The mean over pairs and its bootstrap percentile interval (seeded): pairs are drawn with replacement.

    Effects are as skewed as prompts are, which a t interval would not show. Raises InputError for a single pair, and
    for pairs of different length, whose positions do not mean the same.
    """
    sites = sites_of(result)
    if len(result) < 2:
        raise InputError("one pair has no spread; explain several pairs to get means with intervals")
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is not between 0 and 1")
    lengths = {len(texts) for texts in result.token_texts or ()}
    if len(lengths) > 1:
        raise InputError(f"the pairs have {sorted(lengths)} tokens, so position i is not the same place in all of them")
    values, low, high = _interval(result.values.cpu().double().flatten(1), confidence)
    shape = result.values.shape[1:]
    metric = {}
    for name in ("clean", "corrupted"):
        m, a, b = _interval(metric_of(result, name).cpu().double()[:, None], confidence)
        metric[name] = (float(m), float(a), float(b))
    values, low, high = (t.reshape(shape).to(result.values) for t in (values, low, high))
    return MeanEffects(sites, values, low, high, confidence, len(result), metric)


def _interval(values: Tensor, confidence: float) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, low, high) of each column of values (pairs, columns), on the CPU."""
    n = len(values)
    drawn = torch.randint(n, (_DRAWS, n), generator=torch.Generator().manual_seed(0))
    counts = torch.zeros(_DRAWS, n, dtype=values.dtype)
    weights = counts.scatter_add_(1, drawn, torch.ones(_DRAWS, n, dtype=values.dtype)) / n
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=values.dtype)
    columns = max(1, _MULTIPLIED_AT_ONCE // _DRAWS)
    ends = [torch.quantile(weights @ part, tails, dim=0) for part in values.split(columns, 1)]
    low, high = torch.cat(ends, 1)
    return values.mean(0), low, high
