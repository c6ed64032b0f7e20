"""Derived weights (positive parts, BatchNorm folded in), remembered per model and never stale."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SAMPLES = 61


def fingerprint(tensor: Tensor) -> tuple[object, ...]:
    """Changes when the tensor changes: its version, and samples of its values for writes through `.data`."""
    flat = tensor.detach().as_strided((tensor.numel(),), (1,)) if _is_dense(tensor) else tensor.detach().reshape(-1)
    step = max(1, flat.numel() // _SAMPLES)
    return (tensor.data_ptr(), tensor._version, tuple(tensor.shape), tensor.dtype, tuple(flat[::step].tolist()))


def _is_dense(tensor: Tensor) -> bool:
    """Whether its elements fill its memory without gaps, in whatever order."""
    return torch.ops.aten.is_non_overlapping_and_dense(tensor) is True


class WeightCache:
    """What rules compute from weights, kept while the weights stay as they are."""

    def __init__(self) -> None:
        self.followed_by_norm: set[int] = set()  # weights of layers whose output goes into a BatchNorm
        self._entries: dict[tuple[object, ...], tuple[tuple[object, ...], tuple[Tensor, ...], Tensor]] = {}

    def derived(self, name: str, sources: tuple[Tensor, ...], compute: Callable[..., Tensor]) -> Tensor:
        """`compute(*sources)`, from memory when no source has changed since.

        The sources are kept alive with the entry, so that an address is never mistaken for its successor's.
        """
        key = (name, *(source.data_ptr() for source in sources))
        marks = tuple(fingerprint(source) for source in sources)
        entry = self._entries.get(key)
        if entry is None or entry[0] != marks:
            with torch.no_grad():
                entry = (marks, sources, compute(*sources))
            self._entries[key] = entry
        return entry[2]
