"""What tensors outside the signal carry along, from what an operation is given to what it returns.

The signal itself is autograd's: what is cut off it, or chosen by looking at it, has no gradient, so no rule and no hook
ever meets it. Such tensors are marked instead, until they meet the signal again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from torch import Tensor

from attrib.rules.call import each_tensor

Mark = TypeVar("Mark")


class Marks(Generic[Mark]):
    """One kind of mark, in one run. name: as attribute of tensors. signal: whether a tensor is part of the signal."""

    def __init__(self, name: str, signal: Callable[[Tensor], bool]) -> None:
        self._name, self.signal = f"_attrib_{name}", signal
        self.any = False

    def of(self, tensors: Iterable[Tensor]) -> list[Mark]:
        """The marks of those that have one."""
        found = (getattr(tensor, self._name, None) for tensor in tensors if not self.signal(tensor))
        return [mark for mark in found if mark is not None]

    def spread(self, mark: Mark, returned: Any, args: Any, only: Callable[[Tensor], bool] = lambda _: True) -> None:
        """Mark what an operation `returned`, but for the signal; only: which of it can have such a mark."""
        for tensor in written(returned, args):
            if not self.signal(tensor) and only(tensor):
                setattr(tensor, self._name, mark)
                self.any = True


def written(returned: Any, args: Any) -> list[Tensor]:
    """The tensors that an operation returned; Tensor.__setitem__ returns nothing, and changes its first argument."""
    return list(each_tensor(args[0] if returned is None and args else returned))
