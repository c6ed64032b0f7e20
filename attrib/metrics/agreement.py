"""How alike two maps are: rank correlation, correlation, and how much of their tops they share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from attrib.class_sensitivity import spearman


def rank_correlations(a: Tensor, b: Tensor, allowed: Tensor) -> Tensor:
    """(batch,): Spearman's correlation over the sites that count; NaN where a map is constant or not finite."""
    return torch.tensor([_spearman(*_inside(a, b, allowed, i)) for i in range(len(a))], dtype=torch.float64)


def correlations(a: Tensor, b: Tensor) -> Tensor:
    """(batch,): Pearson's correlation of all entries; NaN where one of them is constant."""
    a, b = a.double().flatten(1), b.double().flatten(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    lengths = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(lengths > 0, (a * b).sum(1) / lengths, torch.nan)


def top_overlaps(a: Tensor, b: Tensor, allowed: Tensor, share: float = 0.1) -> Tensor:
    """(batch,): |top(a) ∩ top(b)| / |top|, with the top `share` of the sites; ties go to the first."""
    found = []
    for i in range(len(a)):
        first, second = _inside(a, b, allowed, i)
        k = max(1, round(share * len(first)))
        tops = [set(np.argsort(-values, kind="stable")[:k].tolist()) for values in (first, second)]
        found.append(len(tops[0] & tops[1]) / k)
    return torch.tensor(found, dtype=torch.float64)


def _inside(a: Tensor, b: Tensor, allowed: Tensor, i: int) -> tuple[np.ndarray, np.ndarray]:
    return a[i][allowed[i]].numpy(), b[i][allowed[i]].numpy()


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan")
    return spearman(a, b)
