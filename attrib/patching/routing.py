"""Which position and which expert each row is of that a mixture of experts multiplies with its weights.

An expert is given the rows of the positions that are sent to it, in an order of the mixture's own: sorted by expert,
repeated for each choice, in one product or one after the other. So the rows are followed from what the mixture is given
through whatever moves them (each move is made with their numbers, too), through products, which keep rows, and through
what keeps the shape. Experts are told by where in the weights the matrix lies that a product is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C import DisableTorchFunction
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from attrib.rules.vocabulary import KIND

_MOVING = frozenset({
    "__getitem__", "cat", "chunk", "concat", "concatenate", "expand", "expand_as", "flatten", "flip", "index_select",
    "movedim", "narrow", "permute", "repeat", "repeat_interleave", "reshape", "roll", "select", "split", "squeeze",
    "stack", "swapaxes", "t", "transpose", "unbind", "unflatten", "unsqueeze", "view",
})  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sent:
    """Rows in front of the last weights. units: (…, width); positions, experts: (…), int64; −1: not known."""

    units: Tensor
    positions: Tensor
    experts: Tensor

    @property
    def expert(self) -> int | None:
        """The one expert of all rows, where they are multiplied with a single matrix."""
        alone = self.experts.numel() > 0 and not any(self.experts.stride())
        return int(self.experts.flatten()[0]) if alone else None


Visit = Callable[[Sent], Tensor | None]


class Routing(TorchFunctionMode):
    """In force while a mixture runs; `visit` is called with what its last weights are multiplied with, and what it
    returns, if anything, takes the place of the units.

    weights: (experts, …), the parameter. given: (…, width), what the mixture is given.
    """

    def __init__(self, weights: Tensor, given: Tensor, visit: Visit) -> None:
        super().__init__()
        self._weights, self._visit = weights, visit
        self._rows, self._experts = WeakTensorKeyDictionary(), WeakTensorKeyDictionary()
        with DisableTorchFunction():
            leading = given.shape[:-1]
            self._rows[given] = (
                torch.arange(leading.numel(), device=given.device).view(leading)[..., None].expand_as(given)
            )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, product = kwargs or {}, KIND.get(func) in ("linear", "matrix_product")
        side = None
        if product and len(args) > 1:
            with DisableTorchFunction():
                side = next((i for i in (0, 1) if self._experts_of(args[i]) is not None), None)
        if side is not None:
            args = (*args[: 1 - side], self._visited(args, kwargs, side), *args[2 - side :])
        output = func(*args, **kwargs)
        with DisableTorchFunction():
            if product:
                self._multiplied(output, args)
            else:
                self._moved(func, output, args, kwargs)
        return output

    def _visited(self, args: Any, kwargs: Any, side: int) -> Tensor:
        """The operand beside the weights, args[side], with what `visit` makes of it."""
        operand: Tensor = args[1 - side]
        with DisableTorchFunction():
            turned = side == 0  # weights · columns
            units, rows = operand, self._rows.get(operand)
            rows = torch.full_like(operand, -1, dtype=torch.long) if rows is None else rows
            if turned:
                units, rows = units.transpose(-1, -2), rows.transpose(-1, -2)
            new = self._visit(Sent(units, rows[..., 0], self._sent_to(args, kwargs, side, units)))
            if new is None:
                return operand
            new = new.transpose(-1, -2) if turned else new
            if (rows := self._rows.get(operand)) is not None:
                self._rows[new] = rows
            return new

    def _sent_to(self, args: Any, kwargs: Any, side: int, units: Tensor) -> Tensor:
        """(…) the expert of each row."""
        experts = self._experts_of(args[side])
        assert experts is not None, "the caller has looked"
        ends = kwargs.get("offs", args[2] if len(args) > 2 and isinstance(args[2], Tensor) else None)
        if ends is not None and units.dim() == 2 and experts.dim() == 1:  # rows of one expert behind another's
            return torch.searchsorted(ends.long(), torch.arange(len(units), device=units.device), right=True)
        return (experts[..., None] if experts.dim() else experts).expand(units.shape[:-1])

    def _experts_of(self, operand: Any) -> Tensor | None:
        """(…) the expert of each matrix of an operand, where it is made of the weights."""
        if not isinstance(operand, Tensor):
            return None
        weights, stride = self._weights, self._weights.stride(0) * self._weights.element_size()
        place = operand.data_ptr() - weights.data_ptr()
        if 0 <= place < stride * len(weights):
            first = place // stride
            if operand.dim() == 2:
                return torch.tensor(first, device=operand.device)
            return torch.arange(first, first + len(operand), device=operand.device) if operand.dim() == 3 else None
        return self._experts.get(operand)  # type: ignore[no-any-return]

    def _multiplied(self, output: Any, args: Any) -> None:
        first, second = (self._numbers(arg) if isinstance(arg, Tensor) else None for arg in args[:2])
        rows = None if first is None else first[..., :1]
        if rows is None and second is not None and second.dim() > 2:  # weights · columns
            rows = second[..., :1, :]
        if rows is not None and isinstance(output, Tensor) and rows.dim() == output.dim():
            self._rows[output] = rows.expand_as(output)

    def _moved(self, func: Any, output: Any, args: Any, kwargs: Any) -> None:
        name: str = getattr(func, "__name__", "")
        first: Any = args[0] if args else None
        if name in _MOVING:
            if name in ("__getitem__", "index_select") and isinstance(first, Tensor):
                self._gathered(func, output, first, args, kwargs)
            known = self._numbers(first)
            if known is not None:
                for made, numbers in zip(_each(output), _each(func(known, *args[1:], **kwargs)), strict=True):
                    self._rows[made] = numbers
        elif name == "__setitem__":
            self._written(first, args[1], self._numbers(args[2]))
        elif isinstance(output, Tensor) and self._rows.get(output) is None:
            like = (self._rows.get(arg) for arg in args if isinstance(arg, Tensor) and arg.shape == output.shape)
            numbers = next((each for each in like if each is not None), None)
            if numbers is not None:
                self._rows[output] = numbers

    def _written(self, into: Tensor, index: Any, written: Tensor | None) -> None:
        if written is not None:
            before = self._rows.get(into)
            numbers = torch.full_like(into, -1, dtype=torch.long) if before is None else before.clone()
            numbers[index] = written
            self._rows[into] = numbers

    def _gathered(self, func: Any, output: Tensor, first: Tensor, args: Any, kwargs: Any) -> None:
        """Matrices of several experts copied out of the weights, one for each row."""
        experts = self._experts_of(first)
        if experts is not None and experts.dim() == 1 and output.dim() == 3 and self._experts_of(output) is None:
            self._experts[output] = func(experts, *args[1:], **kwargs)

    def _numbers(self, value: Any) -> Any:
        """The rows' numbers of a tensor, or of a list in which any has some; None where nothing is known."""
        if isinstance(value, Tensor):
            return self._rows.get(value)
        if not isinstance(value, (tuple, list)) or not any(self._numbers(part) is not None for part in value):
            return None
        known = [(part, self._numbers(part)) for part in value]
        return [torch.full_like(p, -1, dtype=torch.long) if n is None else n for p, n in known]


def _each(value: Any) -> list[Any]:
    return [value] if isinstance(value, Tensor) else list(value)
