"""How alike two maps are: rank correlation, correlation, and how much of their tops they share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from attrib.class_sensitivity import unit_ranks


def rank_correlations(a: Tensor, b: Tensor, allowed: Tensor) -> Tensor:
    """(batch,): Spearman's correlation over the sites that count; NaN where a map is constant or not finite."""
    return alike(ranked(a, allowed), ranked(b, allowed))


def ranked(maps: Tensor, allowed: Tensor) -> list[np.ndarray]:
    """Of every input `unit_ranks` of the sites that count; NaN where the map is constant or not finite."""
    inside = [values[sites].numpy() for values, sites in zip(maps, allowed, strict=True)]
    return [unit_ranks(v) if np.isfinite(v).all() else np.full(len(v), np.nan) for v in inside]


def alike(a: list[np.ndarray], b: list[np.ndarray]) -> Tensor:
    """(batch,): Spearman's correlation of what `ranked` made."""
    each = [float(one @ other) if len(one) > 1 else np.nan for one, other in zip(a, b, strict=True)]
    return torch.tensor(each, dtype=torch.float64)


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
        first, second = (maps[i][allowed[i]].numpy() for maps in (a, b))
        found.append(shared_tops(first, second, share))
    return torch.tensor(found, dtype=torch.float64)


def shared_tops(a: np.ndarray, b: np.ndarray, share: float = 0.1) -> float:
    """|top(a) ∩ top(b)| / |top| of two lists of numbers."""
    k = max(1, round(share * len(a)))
    tops = [set(np.argsort(-values, kind="stable")[:k].tolist()) for values in (a, b)]
    return len(tops[0] & tops[1]) / k
