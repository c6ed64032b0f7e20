"""The units of a mixture's experts as one tensor, (positions, experts · width): read, and written, while it runs.

Unit u of expert e is column e · width + u; it is zero where the position was not sent to the expert. Written, a unit is
changed where the run at hand has sent the position to its expert: routing is never changed, so what is written for
other experts goes nowhere, and an expert that the source run did not choose is written as zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.autograd.graph import GradientEdge, get_gradient_edge

from attrib.errors import UnsupportedModel
from attrib.patching.inside import wrapping
from attrib.patching.places import Place
from attrib.patching.routing import Routing, Sent
from attrib.sites import first_tensor

Note = Callable[[Tensor, GradientEdge | None], None]


class _Shift(torch.autograd.Function):
    """The units, as if rows of zeros had been added to them; nothing that a table of rules would have to know of."""

    @staticmethod
    def forward(ctx: Any, units: Tensor, zeros: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = zeros.shape
        return units.view_as(units)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (rows,) = ctx.saved_tensors
        into = gradient.new_zeros(ctx.shape)
        return gradient, into.index_add_(0, rows.flatten(), gradient.reshape(-1, into.shape[1])), None


def _shifted(units: Tensor, zeros: Tensor, rows: Tensor) -> Tensor:
    shifted: Tensor = _Shift.apply(units, zeros, rows)
    return shifted


class _Units:
    """Collects the units of one run of a mixture, of `rows` positions. shift: zeros that are added to them, where
    gradients are wanted; None before the first have been met."""

    def __init__(self, weights: Tensor, rows: int, shifted: bool) -> None:
        self._experts, self._rows, self._shifted = len(weights), rows, shifted
        self._met: list[tuple[Tensor, Tensor, Tensor]] = []
        self._by_expert: tuple[Tensor, ...] = ()
        self.shift: Tensor | None = None

    def meet(self, sent: Sent) -> Tensor | None:
        positions, experts = _known(sent)
        units = sent.units
        self._met.append((positions.flatten(), experts.flatten(), units.reshape(-1, units.shape[-1])))
        if not self._shifted:
            return None
        if self.shift is None:
            self.shift = units.new_zeros(self._rows, self._experts * units.shape[-1]).requires_grad_()
            self._by_expert = self.shift.unflatten(1, (self._experts, -1)).unbind(1)
        if sent.expert is not None:  # of one alone, or each would have a gradient as large as that of all
            return _shifted(units, self._by_expert[sent.expert], positions)
        return _shifted(units, self.shift.view(-1, units.shape[-1]), positions * self._experts + experts)

    @property
    def dense(self) -> Tensor | None:
        """(rows, experts · width); None where no expert ran."""
        if not self._met:
            return None
        positions, experts, units = (torch.cat(parts) for parts in zip(*self._met, strict=True))
        dense = units.new_zeros(self._rows, self._experts, units.shape[-1])
        return dense.index_put((positions, experts), units).flatten(1)


def reading_experts(
    stack: ExitStack, module: nn.Module, weights: Tensor, comes: Callable[[], bool], note: Note
) -> None:
    """Until `stack` closes, `note` is called with the units and where their gradients can be asked for, whenever the
    module runs and `comes()`."""

    def around(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not comes():
                return forward(*args, **kwargs)
            given = _given(args, kwargs)
            units = _Units(weights, given.shape[:-1].numel(), torch.is_grad_enabled() and given.requires_grad)
            with Routing(weights, given, units.meet):
                output = forward(*args, **kwargs)
            with DisableTorchFunction(), torch.no_grad():
                dense = units.dense
                if dense is not None:
                    note(dense, None if units.shift is None else get_gradient_edge(units.shift))
            return output

        return run

    wrapping(stack, module, around)


def writing_experts(
    stack: ExitStack,
    module: nn.Module,
    weights: Tensor,
    comes: Callable[[], bool],
    change: Callable[[Tensor], Tensor],
) -> None:
    """Until `stack` closes, the module runs with `change(units)` for its units, where it `comes()`.

    It runs twice: its experts may run one after the other, so that what all of them make is known only in the end.
    """

    def around(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not comes():
                return forward(*args, **kwargs)
            given = _given(args, kwargs)
            units = _Units(weights, given.shape[:-1].numel(), False)
            with Routing(weights, given, units.meet):
                output = forward(*args, **kwargs)
            dense = units.dense
            if dense is None:
                return output
            changed = change(dense).unflatten(1, (len(weights), -1))
            with Routing(weights, given, lambda sent: changed[_known(sent)]):
                return forward(*args, **kwargs)

        return run

    wrapping(stack, module, around)


def _given(args: Any, kwargs: Any) -> Tensor:
    given = first_tensor((*args, *kwargs.values()))
    assert given is not None, "probing has looked"
    return given


def _known(sent: Sent) -> tuple[Tensor, Tensor]:
    if sent.positions.numel() and int(sent.positions.min()) < 0:
        raise UnsupportedModel(
            "a mixture of experts moves rows in a way that cannot be followed; leave its neurons out of the sites"
        )
    return sent.positions, sent.experts


def weights_of(twin: nn.Module, place: Place) -> Tensor:
    """The last weights of the experts at a place, (experts, …)."""
    path, _, name = place.experts.rpartition(".")
    weights: Tensor = getattr(twin.get_submodule(path), name)  # a twin's parameters are plain tensors
    return weights if weights.dim() == 3 else weights.view(place.matrices, -1, weights.shape[1])
