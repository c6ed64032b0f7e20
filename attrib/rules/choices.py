"""Where a model chooses by value: masks from comparisons, places from sorting, rows by the largest entry.

What is chosen is linear in the signal only as long as the choice stays the same. DeepLIFT compares the choices on the
baseline with those on the input: `trace`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from attrib.rules.call import each_tensor
from attrib.rules.marks import Marks, written


def _both(names: str) -> frozenset[Any]:
    """torch's functions and the tensors' methods of these names."""
    found = (getattr(module, name, None) for name in names.split() for module in (torch, Tensor))
    return frozenset(function for function in found if function is not None)


_DECIDING = _both(
    "gt greater lt less ge greater_equal le less_equal eq ne not_equal isclose isnan isinf isfinite argmax argmin "
    "argsort nonzero argwhere bucketize searchsorted signbit __gt__ __lt__ __ge__ __le__ __eq__ __ne__ long int"
)
SORTING = _both("sort topk median kthvalue cummax cummin mode")
_LOOKING = frozenset({Tensor.detach, Tensor.data.__get__})  # type: ignore[attr-defined]


class Choices:
    """Follows, in one run, what is decided by values to where it meets the signal again.

    carries: whether a tensor is part of the signal.
    """

    def __init__(self, carries: Callable[[Any], bool]) -> None:
        self._carries = carries
        self._marks = Marks[Literal["seen", "decided"]]("choice", carries)

    def met(self, func: Any, args: Any, kwargs: Any, output: Any) -> list[Tensor]:
        """The choices that this call, which returned `output`, makes or meets together with the signal."""
        if not self._marks.any and func not in _DECIDING and func not in SORTING and func not in _LOOKING:
            return []
        given = list(each_tensor((args, kwargs)))
        signal = any(map(self._carries, given))
        if func in SORTING and signal:
            places = [part for part in each_tensor(output) if not part.is_floating_point()]
            self._marks.spread("decided", places, args)
            return places
        marks = self._marks.of(given)
        if func in _DECIDING and (signal or marks):
            self._marks.spread("decided", output, args)
        elif signal and "decided" in marks and any(map(self._carries, written(output, args))):
            return [tensor for tensor in given if "decided" in self._marks.of([tensor])]
        elif marks:
            self._marks.spread("decided" if "decided" in marks else "seen", output, args)
        elif signal and func in _LOOKING:
            self._marks.spread("seen", output, args)
        return []


def same(here: list[Tensor], there: list[Tensor]) -> bool:
    """Whether two runs chose alike; one of them may have a single row for all."""
    fit = len(here) == len(there) and all(a.shape[1:] == b.shape[1:] for a, b in zip(here, there, strict=True))
    fit = fit and all(len(b) in (1, len(a)) if b.dim() else True for a, b in zip(here, there, strict=True))
    return fit and all(bool((a == b).all()) for a, b in zip(here, there, strict=True))
