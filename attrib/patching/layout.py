"""How a model lays out its hidden states: which dimension positions are in, whether they are filled up, and whether a
position has several rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attrib.errors import UnsupportedModel
from attrib.patching.places import Axes
from attrib.patching.trace import Trace


class Layout:
    """Of the tensors of one trace. ends: nodes of the stream before the first layer and behind the last.

    leading: all but the width of the stream. streams: how many rows of it a position has, one behind all tokens of the
    other. Raises UnsupportedModel where its rows are not positions.
    """

    def __init__(self, name: str, trace: Trace, ends: tuple[int, int]) -> None:
        self._trace = trace
        tokens = trace.tokens
        self.leading = tuple(trace.rows(ends[0]).shape[:-1])
        plain = self.leading in ((1, tokens), (tokens,), (tokens, 1))
        self.streams = 1 if plain or _filled_up(trace, ends) else _stacked(trace, ends)
        if not self.streams:
            raise UnsupportedModel(
                f"{name} keeps its hidden states as {tuple(trace.tensors[ends[0]].shape)} when it is given {tokens} "
                "tokens, so that positions cannot be told: its layers have no sites"
            )
        self._rows = math.prod(self.leading)

    def fits(self, node: int) -> bool:
        """Whether the tensor has a row for each position, or as many as the stream has."""
        leading = tuple(self._trace.rows(node).shape[:-1])
        if self.streams > 1:
            return leading in (self.leading, (1, self._trace.tokens))
        return leading == self.leading or self._in_order(leading) or self._tokens_first(leading)

    def _in_order(self, leading: tuple[int, ...]) -> bool:
        """Whether positions are behind all that could be the batch."""
        return leading[-1:] == (self._rows,) and math.prod(leading) == self._rows

    def _tokens_first(self, leading: tuple[int, ...]) -> bool:
        """Whether they are in front of the batch."""
        return leading == (self._rows, 1) and len(self.leading) == 2

    def axes(self, node: int) -> Axes | None:
        """Of a tensor that fits: where its rows are, if positions are not behind the batch and its width last."""
        shape = tuple(self._trace.tensors[node].shape)
        if self.streams > 1 and shape[1] != self._trace.tokens:
            return Axes((0, 2, 1, 3), (1, self.streams))
        if len(shape) > 2 and self._tokens_first(shape[:2]):
            return Axes((1, 0, *range(2, len(shape))))
        if self._trace.has_parts(node):
            return Axes(tuple(range(len(shape))))
        return Axes((0, 2, 1)) if self._trace.swapped(node) is not None else None

    def rows(self, node: int) -> Tensor:
        """The tensor, one that fits, with its positions behind the batch and its width last."""
        axes, tensor = self.axes(node), self._trace.tensors[node]
        return tensor if axes is None else axes.rows(tensor)

    def common_width(self, nodes: Sequence[int]) -> int:
        """The width that all of these tensors have; 0 where they have none in common, or no row for each position."""
        widths = {int(self.rows(node).shape[-1]) if self.fits(node) else 0 for node in nodes}
        return next(iter(widths)) if len(widths) == 1 else 0


def _filled_up(trace: Trace, ends: tuple[int, int]) -> bool:
    """Whether the stream (1, rows, width) begins with token i in row i and nothing of any token in the rows behind,
    which nobody reads at its end (Longformer)."""
    hidden, last = (trace.tensors[node] for node in ends)
    tokens = trace.tokens
    if hidden.dim() != 3 or last.shape != hidden.shape or len(hidden) != 1 or not isinstance(trace.output, Tensor):
        return False
    if not (hidden.requires_grad and last.requires_grad):
        return False
    if [_heard(trace, hidden[0, i]) for i in range(tokens)] != [[i] for i in range(tokens)]:
        return False
    if _heard(trace, hidden[0, tokens:]):
        return False
    x = trace.tensors[0]
    logits = trace.output * torch.linspace(1.0, 2.0, trace.output.shape[-1], dtype=x.dtype, device=x.device)
    (gradient,) = torch.autograd.grad(logits.sum(), [last], retain_graph=True)
    return not gradient[0, tokens:].any()


def _stacked(trace: Trace, ends: tuple[int, int]) -> int:
    """How many rows the stream has for each position, all tokens of one stream behind those of another (ProphetNet):
    at its beginning the first is of the tokens and no other row hears of another position, and at its end what is made
    of a position reads its own rows alone. 0: others."""
    hidden, last = (trace.tensors[node] for node in ends)
    tokens, rows = trace.tokens, hidden.shape[1] if hidden.dim() > 2 else 0
    if hidden.dim() != 3 or len(hidden) != 1 or last.shape != hidden.shape or rows % tokens:
        return 0
    heard = [_heard(trace, hidden[0, row]) for row in range(rows)]
    own = all(set(found) <= {row % tokens} for row, found in enumerate(heard)) and all(heard[:tokens])
    read = [_read(trace, last, position) for position in range(tokens)]
    apart = all(found and {row % tokens for row in found} == {position} for position, found in enumerate(read))
    return rows // tokens if own and apart else 0


def _read(trace: Trace, last: Tensor, position: int) -> list[int]:
    """Which rows of a tensor (1, rows, width) act on the output at the position."""
    output = trace.output
    if not isinstance(output, Tensor) or output.shape[:2] != (1, trace.tokens) or not last.requires_grad:
        return []
    weights = torch.linspace(1.0, 2.0, output.shape[-1], dtype=output.dtype, device=output.device)
    (gradient,) = torch.autograd.grad((output[0, position] * weights).sum(), [last], retain_graph=True)
    return gradient[0].any(1).nonzero()[:, 0].tolist()


def _heard(trace: Trace, part: Tensor) -> list[int]:
    """Which of the tokens act on a part of a tensor."""
    x = trace.tensors[0]
    if not part.requires_grad:
        return []
    weights = torch.linspace(1.0, 2.0, part.shape[-1], dtype=x.dtype, device=x.device)
    (gradient,) = torch.autograd.grad((part * weights).sum(), [x], retain_graph=True, allow_unused=True)
    return [] if gradient is None else gradient[0].any(1).nonzero()[:, 0].tolist()
