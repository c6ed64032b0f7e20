"""Shapley values by weighted regression over sets of players. Lundberg & Lee 2017, theorem 2."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import torch
from torch import Tensor


def coalitions(n: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sets of n regions (sets, n) bool, neither empty nor full, and the weight of each in the regression.

    All sets with the Shapley kernel (n − 1) / (C(n, k) k (n − k)) where they are no more than `samples`;
    else drawn from that kernel, each with its complement, and so of equal weight.
    """
    sizes = np.arange(1, n)
    if 2**n - 2 <= samples:
        proper = [s for s in product((False, True), repeat=n) if 0 < sum(s) < n]
        every = torch.tensor(proper, dtype=torch.bool).reshape(-1, n)
        return every, torch.tensor(
            [(n - 1) / (comb(n, k) * k * (n - k)) for k in every.sum(1).tolist()], dtype=torch.float64
        )
    rng = np.random.default_rng(seed)
    chance = 1 / (sizes * (n - sizes))
    kept = np.zeros((samples, n), dtype=bool)
    for i in range(0, samples, 2):
        kept[i, rng.choice(n, rng.choice(sizes, p=chance / chance.sum()), replace=False)] = True
        if i + 1 < samples:
            kept[i + 1] = ~kept[i]
    return torch.from_numpy(kept), torch.ones(samples, dtype=torch.float64)


def shapley_regression(kept: Tensor, weights: Tensor, gains: Tensor, whole: Tensor) -> Tensor:
    """argmin_φ Σ_S w_S (gain_S − Σ_{i∈S} φ_i)² with Σφ = whole: the constraint eliminates the last φ.

    kept (sets, n) bool, weights and gains (sets,), whole (): float64, in the score's units as φ (n,) is. NaN, where a
    gain is no finite number.
    """
    design = kept.double()
    reduced = design[:, :-1] - design[:, -1:]
    wanted = gains - design[:, -1] * whole
    root = weights.sqrt()
    if not wanted.isfinite().all():  # which no solver takes
        return torch.full_like(design[0], torch.nan)
    if not reduced.shape[1]:  # a single region has it all
        return whole[None]
    # gelsd: the smallest solution where the sets do not determine one
    first = torch.linalg.lstsq(root[:, None] * reduced, (root * wanted)[:, None], driver="gelsd").solution[:, 0]
    return torch.cat([first, (whole - first.sum())[None]])


def uncertainty(kept: Tensor, gains: Tensor, shares: Tensor) -> float:
    """The standard error of a value as least squares has it, as a share of the largest value; 0 where all are 0.

    kept (sets, n) bool, gains (sets,), shares (n,): what `shapley_regression` took and found.

    Sets come with their complements, of which one's error takes some of the other's: it is about half of that.
    """
    design = kept.double()
    reduced = design[:, :-1] - design[:, -1:]
    free = len(kept) - reduced.shape[1]
    largest = float(shares.abs().max())
    if free < 1 or not reduced.shape[1] or largest == 0:
        return 0.0
    variance = (gains - design @ shares).square().sum() / free
    return float((variance * torch.linalg.pinv(reduced.T @ reduced).diagonal().mean()).sqrt()) / largest
