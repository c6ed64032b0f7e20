"""Intervals and tests for a handful of inputs: the bootstrap and the sign-flip permutation test."""

from __future__ import annotations

import itertools

import numpy as np

_RESAMPLES = 2000
_FLIPS = 10_000
_ENUMERATED = 12  # up to so many inputs, all 2^n signs are tried
FEWEST = 3  # below, no interval and no test says anything


def interval(values: np.ndarray, confidence: float, seed: int) -> tuple[float, float] | None:
    """Percentile bootstrap of the mean over inputs; None for fewer than three finite values."""
    values = values[np.isfinite(values)]
    if len(values) < FEWEST:
        return None
    drawn = np.random.default_rng((seed, 10)).integers(0, len(values), (_RESAMPLES, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[drawn].mean(1), (tail, 1 - tail))
    return float(low), float(high)


def sign_flip(gains: np.ndarray, seed: int) -> float | None:
    """One-sided p: how often the mean gain would be as large if every gain's sign were a coin's.

    gains: (inputs,), paired: by how much the map is better than the reference on each input. None for fewer than
    three finite ones. With n inputs the smallest possible p is 1/2ⁿ.
    """
    gains = gains[np.isfinite(gains)]
    if len(gains) < FEWEST:
        return None
    if len(gains) <= _ENUMERATED:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(gains))))
        return float((signs @ gains >= gains.sum() - 1e-12).mean())
    drawn = np.random.default_rng((seed, 11)).choice((1.0, -1.0), (_FLIPS, len(gains)))
    return float((1 + (drawn @ gains >= gains.sum() - 1e-12).sum()) / (1 + _FLIPS))


def among(value: float, others: np.ndarray) -> float:
    """One-sided Monte-Carlo p of a value, larger is better, among random draws: (1 + #draws as good) / (1 + #draws)."""
    others = others[np.isfinite(others)]
    return float((1 + (others >= value).sum()) / (1 + len(others)))
