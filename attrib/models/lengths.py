"""Texts of several lengths in one batch: padding, and doing without it for models that read it as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MASK = "attention_mask"
Extra = dict[str, Tensor]  # a tensor of two axes has one entry per token, one of one axis one per row


def padded_rows(rows: Sequence[Sequence[int]], padding: int) -> Tensor:
    """(rows, longest), shorter rows padded on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])


def by_length(forward: Callable[[Tensor, Extra], Tensor], x: Tensor, extra: Extra) -> Tensor:
    """`forward` of rows of one length at a time, cut to it and without a mask; its outputs in the rows' order."""
    lengths = extra[MASK].sum(1)
    if len(x) == 1:  # which may be read at several positions
        length = int(lengths[0])
        return forward(x[:, :length], _own(extra, slice(None), length))
    parts, order = [], []
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        parts.append(forward(x[rows, :length], _own(extra, rows, length)))
        order.append(rows)
    return torch.cat(parts)[torch.cat(order).argsort()]


def _own(extra: Extra, rows: Tensor | slice, length: int) -> Extra:
    return {
        name: value[rows][:, :length] if value.dim() > 1 else value[rows]
        for name, value in extra.items()
        if name != MASK
    }
