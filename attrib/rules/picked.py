"""Backwards of products with many weights, which read only those that they need.

At a small batch such a product takes as long as its weights take to come from memory, and behind a ReLU, a score of
one class or one token most of what comes back is zero: the rows of the weights at zeros need not be read.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, linear

from attrib.rules.ruled import frozen

# of weights; fewer are read before they could be chosen
_MANY = 4_000_000
# of the rows of the weights that are read, in all; measured at 103 million weights: half the time of a whole product
_FEW = 0.6


def choosable(weight: Tensor) -> bool:
    """Whether choosing rows may pay: many float32 weights on a CPU, row by row in memory."""
    return weight.numel() >= _MANY and weight.is_contiguous() and weight.device.type == "cpu"


def few(c: Tensor, weight: Tensor) -> bool:
    """Whether c, (…, out), is zero nearly everywhere."""
    return choosable(weight) and int(c.count_nonzero()) <= _FEW * len(weight)


def picked(c: Tensor, weight: Tensor) -> Tensor:
    """c·weight, (…, in), from the rows of weight, (out, in), where c is not zero."""
    return frozen(lambda c: _sums(c, weight), lambda g: linear(g, weight), c)


def _sums(c: Tensor, weight: Tensor) -> Tensor:
    rows = c.reshape(-1, c.shape[-1])
    row, place = rows.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(rows))
    sums = embedding_bag(place, weight, counts.cumsum(0) - counts, mode="sum", per_sample_weights=rows[row, place])
    return sums.unflatten(0, c.shape[:-1]) if c.dim() > 1 else sums[0]
