"""One torch function call, as the rule that answers it sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from attrib.rules.engine import Engine


@dataclass(frozen=True)
class Call:
    """function(*args, **kwargs), an operation of a kind; engine: under which it runs."""

    engine: Engine
    kind: str
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def x(self) -> Tensor:
        """The first argument."""
        first: Tensor = self.args[0] if self.args else next(iter(self.kwargs.values()))
        return first

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def plain(self) -> Any:
        """The call as the model wrote it, with its ordinary gradient."""
        return self.function(*self.args, **self.kwargs)

    @property
    def in_place(self) -> bool:
        name = getattr(self.function, "__name__", "")
        dunder = name.startswith("__i") and name != "__init__"
        return bool(self.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__")) or dunder


def carries_relevance(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether any tensor among the arguments requires gradients: in a twin that means it carries relevance."""
    with unasked():
        return _any_carries((*args, *kwargs.values()))


def _any_carries(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, Tensor):
            if value.requires_grad:
                return True
        elif isinstance(value, (list, tuple)) and _any_carries(value):
            return True
    return False


# In its block tensors are read without asking the modes in force, each of which would be called for every attribute
unasked = torch._C.DisableTorchFunction


def carries(value: Any) -> bool:
    """Whether it is a tensor that requires gradients."""
    with unasked():
        return isinstance(value, Tensor) and value.requires_grad


def is_empty(value: Any) -> bool:
    """Whether it is a tensor without entries: what an expert is given that no token was sent to."""
    with unasked():
        return isinstance(value, Tensor) and value.numel() == 0


def each_tensor(values: Any) -> Iterator[Tensor]:
    """The tensors among nested arguments, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from each_tensor(tuple(values.values()))
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from each_tensor(value)


def in_transform() -> bool:
    """Whether torch.vmap, torch.func.grad or another transform of torch.func runs: its tensors stand for others."""
    return torch._C._functorch.maybe_current_level() is not None


def carries_inside(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """`carries_relevance` for the tensors of a transform, which say of themselves that they require no gradient."""
    return any(_behind(tensor).requires_grad for tensor in each_tensor((*args, *kwargs.values())))


def _behind(tensor: Tensor) -> Tensor:
    functorch = torch._C._functorch
    while not tensor.requires_grad and functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor
