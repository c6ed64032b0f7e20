"""Tensors put into others: masks, padding, stacks, slices assigned. Linear in what carries relevance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attrib.rules.call import Call, each_tensor
from attrib.rules.elementwise import finite
from attrib.rules.ledger import booking
from attrib.rules.ruled import on_relevance

CONSTANT = "constants put in"


def placed(call: Call) -> Any:
    """The call with its ordinary gradient; what constants carry that it puts beside the signal is booked."""
    constants = _constants(call) if _may_have_constants(call) else None
    output = call.plain()
    if constants is not None and bool(constants.any()):
        changed = call.x if output is None else output  # Tensor.__setitem__ returns nothing
        on_relevance(changed, booking(call.engine.ledger, CONSTANT, finite(constants)))
    return output


def _may_have_constants(call: Call) -> bool:
    given = (*call.args, *call.kwargs.values())
    numbers = () if isinstance(call.args[0], (list, tuple)) else given[1:]  # a stack's is its axis
    if any(isinstance(number, (int, float)) and number for number in numbers):
        return True
    return any(t.is_floating_point() and not t.requires_grad for t in each_tensor(given))


def _constants(call: Call) -> Tensor:
    """What comes out where nothing that carries relevance goes in."""
    with torch.no_grad():
        args, kwargs = (
            [_without_signal(v) for v in call.args],
            {k: _without_signal(v) for k, v in call.kwargs.items()},
        )
        output = call.function(*args, **kwargs)
    found: Tensor = args[0] if output is None else output
    return found


def _without_signal(value: Any) -> Any:
    if isinstance(value, Tensor):  # copies, for the call may write into them
        return torch.zeros_like(value) if value.requires_grad else value.clone()
    return type(value)(_without_signal(v) for v in value) if type(value) in (list, tuple) else value


def resampled(call: Call) -> Any:
    """Linear where the places that are read do not depend on the input."""
    places = call.argument(1, "grid")
    return NotImplemented if places.requires_grad else call.plain()
