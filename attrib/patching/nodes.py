"""What a trace is made of: tensors, calls of modules, and the weights that tensors are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from attrib.patching.operations import Kind
from attrib.patching.places import Operation


@dataclass(frozen=True)
class Node:
    """One tensor. matrix: made by a leaf module with a weight matrix; pointwise: by one that works position by
    position without one (a norm, an activation, dropout); attention: by a softmax between tokens, or fused."""

    kind: Kind
    inputs: tuple[int, ...]
    path: str  # of the leaf module that made it, or of the module whose own code did
    # of "scaled": what its input was multiplied by, where that is a number; else the node of that, if there is one
    factor: float | None = None
    by: int | None = None
    operation: Operation | None = None  # of what a module's own code makes
    turn: int = 0  # in which call of that module, from 0


@dataclass(frozen=True)
class Visit:
    """One call of one module: its tensor arguments and the first tensor of its output, as numbers of nodes."""

    path: str
    inputs: tuple[int, ...]
    output: int
    span: tuple[int, int]  # when it began and ended, in calls and returns of modules

    def inside(self, other: Visit) -> bool:
        """Whether this call happened during the other."""
        return other.span[0] < self.span[0] and self.span[1] < other.span[1]


class Weights:
    """A twin's parameters and buffers, found again by where their numbers lie, also where a tensor repeats them."""

    def __init__(self, twin: nn.Module) -> None:
        weights = (*twin.named_buffers(), *twin.named_parameters())
        self._by_address = {weight.data_ptr(): (path, weight.reshape(-1)) for path, weight in weights}

    def path_of(self, tensor: Tensor) -> str | None:
        """Of the weight, one number or as many as the tensor is wide, that every row of the tensor is."""
        path, weight = self._by_address.get(tensor.data_ptr(), ("", tensor))
        fits = path and len(weight) in (1, tensor.shape[-1] if tensor.dim() else 1)
        return path if fits and bool((tensor == weight).all()) else None
