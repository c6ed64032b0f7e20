"""Which columns of a projection act on a head's output, and how: read off gradients.

With the output of a head at the last token: only that token's queries act on it; keys of all tokens act on it through
attention's weights; values without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from attrib.patching.places import Axes

KINDS = ("queries", "keys", "values")


@dataclass(frozen=True, eq=False)
class Projected:
    """What a projection, or a norm behind it, puts out. axes: see `Place`. matrix: which one it belongs to."""

    tensor: Tensor
    axes: Axes | None
    matrix: int

    def rows(self, like_tensor: Tensor) -> Tensor:
        """(tokens, width) of a tensor shaped like it."""
        upright = like_tensor if self.axes is None else self.axes.rows(like_tensor)
        return upright.reshape(-1, upright.shape[-1])


@dataclass(frozen=True, eq=False)
class Acting:
    """Which columns of each projection act on one head at the last token. own: those of that token alone; weighing:
    those of tokens before it through attention's weights; weighed: those of them that act in another way."""

    own: list[Tensor]
    weighing: list[Tensor]
    weighed: list[Tensor]

    def of_kind(self, kind: str, alone: bool) -> list[Tensor]:
        """alone: without what is of another kind as well."""
        if kind == "queries":
            return self.own
        these, others = (self.weighing, self.weighed) if kind == "keys" else (self.weighed, self.weighing)
        return [mask & ~other for mask, other in zip(these, others, strict=True)] if alone else these

    def part(self, which: int) -> Acting:
        return Acting(self.own[which : which + 1], self.weighing[which : which + 1], self.weighed[which : which + 1])


def acting(outputs: Sequence[Tensor], projected: Sequence[Projected], weights: Sequence[Tensor]) -> list[Acting]:
    """For each head. outputs: (tokens, width) of each; weights: attention's, or what a fused call makes them from."""
    return [_on_head(output, projected, weights) for output in outputs]


def _on_head(output: Tensor, projected: Sequence[Projected], weights: Sequence[Tensor]) -> Acting:
    last = output[-1]
    score = (last * torch.linspace(1.0, 2.0, len(last), dtype=last.dtype, device=last.device)).sum()
    through = _gradients([score], weights, [torch.ones_like(score)])
    passed = [(tensor, g) for tensor, g in zip(weights, through, strict=True) if g is not None]
    tensors = [each.tensor for each in projected]
    by_weights = _gradients([t for t, _ in passed], tensors, [g for _, g in passed])
    with _stopped(weights):
        otherwise = _gradients([score], tensors, [torch.ones_like(score)])
    own, weighing, weighed = [], [], []
    for each, one, two in zip(projected, by_weights, otherwise, strict=True):
        masks = [each.rows(torch.zeros_like(each.tensor) if g is None else g)[: len(output)] != 0 for g in (one, two)]
        before = [mask[:-1].any(0) for mask in masks]
        own.append((masks[0][-1] | masks[1][-1]) & ~(before[0] | before[1]))
        weighing.append(before[0])
        weighed.append(before[1])
    return Acting(own, weighing, weighed)


def _gradients(
    outputs: Sequence[Tensor], tensors: Sequence[Tensor], given: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    if not outputs or not tensors:
        return [None] * len(tensors)
    return torch.autograd.grad(outputs, tensors, given, retain_graph=True, allow_unused=True)


@contextmanager
def _stopped(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Inside, no gradient passes these."""
    with ExitStack() as stack:
        for tensor in tensors:
            stack.callback(tensor.register_hook(torch.zeros_like).remove)
        yield
