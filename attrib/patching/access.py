"""Reading and writing places of a twin while it runs: hooks that come off in the same `with`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.autograd.graph import GradientEdge, get_gradient_edge

from attrib.errors import UnsupportedModel
from attrib.patching.experts import reading_experts, weights_of, writing_experts
from attrib.patching.inside import at_operation
from attrib.patching.places import Place
from attrib.sites import first_tensor

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Readings:
    """What was noted. values: the very tensors of the model, no copies.

    edges: where their gradients can be asked for (`torch.autograd.grad(score, edges)`), of those that have any.
    """

    values: dict[Place, Tensor] = field(default_factory=dict)
    edges: dict[Place, GradientEdge] = field(default_factory=dict)


@contextmanager
def reading(twin: nn.Module, places: Iterable[Place]) -> Iterator[Readings]:
    """Inside, each place's tensor is noted whenever the twin runs; the last run counts.

    Where the twin changes the tensor in place later on, it goes on with a copy, to do that to.
    """
    found = Readings()

    def note(place: Place, tensor: Tensor) -> Tensor | None:
        with DisableTorchFunction():  # no rule is asked about what the model does not do
            tensor = tensor.view_as(tensor) if place.own else tensor
            rows = place.rows(tensor)
            found.values[place] = rows.detach()
            if rows.requires_grad:
                found.edges[place] = get_gradient_edge(rows)
            if place.axes is not None and not place.shared:
                # the model goes on from these rows, so that they have gradients
                return place.back(rows.clone(), tensor)
        if not place.changed:
            return tensor if place.own else None
        if place.shared:
            raise UnsupportedModel(
                f"the tensor that module {place.path!r} is given is changed in place after others have read it, so "
                "that its gradient cannot be told apart; leave this site out"
            )
        return tensor.clone()

    def note_units(place: Place, units: Tensor, edge: GradientEdge | None) -> None:
        found.values[place] = units
        if edge is not None:
            found.edges[place] = edge

    with ExitStack() as stack:
        for place in dict.fromkeys(places):
            if place.reads == "experts":
                reading_experts(stack, *_mixture(stack, twin, place), partial(note_units, place))
            else:
                _hook(stack, twin, place, partial(note, place))
        yield found


@contextmanager
def writing(twin: nn.Module, changes: Mapping[Place, Change]) -> Iterator[None]:
    """Inside, the twin runs with each place's tensor replaced by `change(tensor)`, of the same shape.

    A shared tensor is overwritten in place, so that all its readers see it; with gradients too.
    """
    with ExitStack() as stack:
        for place, change in changes.items():
            if place.reads == "experts":
                writing_experts(stack, *_mixture(stack, twin, place), change)
                continue
            _hook(stack, twin, place, partial(_changed, place, change))
        yield


def _changed(place: Place, change: Change, tensor: Tensor) -> Tensor:
    if place.shared:
        return tensor.copy_(place.back(change(place.rows(tensor.clone())), tensor))
    return place.back(change(place.rows(tensor)), tensor)


def _mixture(stack: ExitStack, twin: nn.Module, place: Place) -> tuple[nn.Module, Tensor, Callable[[], bool]]:
    return twin.get_submodule(place.path), weights_of(twin, place), _turn(stack, twin, place).comes


def _turn(stack: ExitStack, twin: nn.Module, place: Place) -> _Turn:
    turn = _Turn(place.call)
    if place.call is not None:
        stack.callback(twin.register_forward_pre_hook(turn.restart).remove)
    return turn


def _hook(stack: ExitStack, twin: nn.Module, place: Place, visit: Callable[[Tensor], Tensor | None]) -> None:
    """Call `visit` with the place's tensor; what it returns, if anything, takes the tensor's place."""
    module, turn = twin.get_submodule(place.path), _turn(stack, twin, place)

    def behind(module: nn.Module, args: Any, output: Any) -> Any:
        if not turn.comes():
            return None
        tensor = first_tensor(output)
        if tensor is None:
            raise UnsupportedModel(f"module {place.path!r} puts out {type(output).__name__} without a tensor")
        with DisableTorchFunction():  # of no account where the model's own operations are counted
            new = visit(tensor)
        return None if new is None else replaced(output, tensor, new)

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        if not turn.comes():
            return None
        tensor = first_tensor((*args, *kwargs.values()))
        if tensor is None:
            raise UnsupportedModel(f"module {place.path!r} is given no tensor")
        with DisableTorchFunction():
            new = visit(tensor)
        return None if new is None else (replaced(args, tensor, new), replaced(kwargs, tensor, new))

    if place.operation is not None:
        at_operation(stack, module, place.operation, turn.comes, visit)
    elif place.reads == "output":
        stack.callback(module.register_forward_hook(behind).remove)
    else:
        stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)


@dataclass
class _Turn:
    """Counts a module's calls since the twin's forward began, up to the one that is meant; None: every one is."""

    call: int | None
    done: int = 0

    def restart(self, *_: Any) -> None:
        self.done = 0

    def comes(self) -> bool:
        self.done += 1
        return self.call is None or self.done == self.call + 1


def replaced(value: Any, old: Tensor, new: Tensor) -> Any:
    """`value`, a tensor, tuple, list or dict, with the tensor `old` replaced by `new`."""
    if isinstance(value, Tensor):
        return new if value is old else value
    if isinstance(value, dict):
        copy = value.copy() if type(value) is dict else type(value)(value)
        for key, part in value.items():
            if part is old:
                copy[key] = new
        return copy
    items = [new if part is old else part for part in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
