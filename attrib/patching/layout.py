"""How a model lays out its hidden states: which dimension positions are in, and whether they are filled up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attrib.errors import UnsupportedModel
from attrib.patching.trace import Trace


class Layout:
    """Of the tensors of one trace. ends: nodes of the stream before the first layer and behind the last.

    leading: all but the width of the stream. Raises UnsupportedModel where its rows are not positions.
    """

    def __init__(self, name: str, trace: Trace, ends: tuple[int, int]) -> None:
        self._trace = trace
        tokens = trace.tokens
        self.leading = tuple(trace.rows(ends[0]).shape[:-1])
        if self.leading not in ((1, tokens), (tokens,), (tokens, 1)) and not _filled_up(trace, ends):
            raise UnsupportedModel(
                f"{name} keeps its hidden states as {tuple(trace.tensors[ends[0]].shape)} when it is given {tokens} "
                "tokens, so that positions cannot be told: its layers have no sites"
            )
        self._rows = math.prod(self.leading)

    def fits(self, node: int) -> bool:
        """Whether the tensor has a row for each position."""
        leading = tuple(self._trace.rows(node).shape[:-1])
        return leading == self.leading or self._in_order(leading) or self._tokens_first(leading)

    def _in_order(self, leading: tuple[int, ...]) -> bool:
        """Whether positions are behind all that could be the batch."""
        return leading[-1:] == (self._rows,) and math.prod(leading) == self._rows

    def _tokens_first(self, leading: tuple[int, ...]) -> bool:
        """Whether they are in front of the batch where the stream's are not."""
        return leading == (self._rows, 1) and len(self.leading) == 2

    def swapped(self, node: int) -> tuple[int, int] | None:
        """What has to be exchanged in a tensor that fits, to have its rows as the stream has them."""
        shape = tuple(self._trace.tensors[node].shape)
        return (
            (0, 1) if self._tokens_first(shape[:-1]) != self._tokens_first(self.leading) else self._trace.swapped(node)
        )

    def rows(self, node: int) -> Tensor:
        """The tensor, one that fits, with its rows as the stream has them."""
        swapped, tensor = self.swapped(node), self._trace.tensors[node]
        return tensor if swapped is None else tensor.transpose(*swapped)

    def common_width(self, nodes: Sequence[int]) -> int:
        """The width that all of these tensors have; 0 where they have none in common, or no row for each position."""
        widths = {int(self.rows(node).shape[-1]) if self.fits(node) else 0 for node in nodes}
        return next(iter(widths)) if len(widths) == 1 else 0


def _filled_up(trace: Trace, ends: tuple[int, int]) -> bool:
    """Whether the stream (1, rows, width) begins with token i in row i and nothing of any token in the rows behind,
    which nobody reads at its end (Longformer)."""
    x, (hidden, last), tokens = trace.tensors[0], (trace.tensors[node] for node in ends), trace.tokens
    if hidden.dim() != 3 or last.shape != hidden.shape or len(hidden) != 1 or not isinstance(trace.output, Tensor):
        return False
    if not (hidden.requires_grad and last.requires_grad):
        return False
    weights = torch.linspace(1.0, 2.0, hidden.shape[-1], dtype=x.dtype, device=x.device)
    parts = [hidden[0, i : i + 1] for i in range(tokens)] + [hidden[0, tokens:]]
    for place, part in enumerate(parts):
        (gradient,) = torch.autograd.grad((part * weights).sum(), [x], retain_graph=True, allow_unused=True)
        heard = [] if gradient is None else gradient[0].any(1).nonzero()[:, 0].tolist()
        if heard != ([place] if place < tokens else []):
            return False
    logits = trace.output * torch.linspace(1.0, 2.0, trace.output.shape[-1], dtype=x.dtype, device=x.device)
    (gradient,) = torch.autograd.grad(logits.sum(), [last], retain_graph=True)
    return not gradient[0, tokens:].any()
