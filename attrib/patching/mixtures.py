"""Which MLPs are mixtures of experts, and where the units of their experts are read: found by watching them run.

A mixture is the innermost module that is given a row for each position and in which all weights of the MLP that are
stacked by expert are used; the ones used last are multiplied with the units. That rows are followed rightly is proved
by gradients: what the mixture puts out at a position is made from the units of that position alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.overrides import TorchFunctionMode

from attrib.errors import UnsupportedModel
from attrib.patching.access import Readings, reading
from attrib.patching.blocklist import Span
from attrib.patching.branches import ancestors, names_of
from attrib.patching.inside import wrapping
from attrib.patching.layers import Reader
from attrib.patching.nodes import Visit
from attrib.patching.places import Place
from attrib.patching.stream import Stream
from attrib.patching.structure import Layer

_NONE = "no single weight matrix that reads a row for each position makes the contribution, nor a mixture of experts"
_UNTOLD = "the experts' rows cannot be told apart by position"


def with_experts(
    reader: Reader,
    twin: nn.Module,
    run: Callable[[], Any],
    spans: Sequence[Span],
    streams: Sequence[Stream | None],
    layers: Sequence[Layer],
) -> list[Layer]:
    """The layers, those with a mixture of experts with its neurons; run: the forward of `twin` that was traced."""
    found: dict[int, Place] = {}
    for number, (layer, span, stream) in enumerate(zip(layers, spans, streams, strict=True)):
        if layer.neurons is None and stream is not None and stream.mlp is not None:
            visit = _mixture(reader, twin, span, stream)
            if visit is None:
                reader.miss("neuron", _NONE)
            else:
                found[number] = Place(visit.path, "input", call=reader.trace.call_of(visit))
    places = _at_last_weights(twin, run, found)
    units = _proved(twin, run, places) if places else {}
    if len(units) < len(found):
        reader.miss("neuron", _UNTOLD if places else _NONE)
    return [
        replace(layer, neurons=places[i], units=units[i], experts=places[i].matrices) if i in units else layer
        for i, layer in enumerate(layers)
    ]


def _mixture(reader: Reader, twin: nn.Module, span: Span, stream: Stream) -> Visit | None:
    assert stream.mlp is not None, "the caller has looked"
    start = span.start if stream.mid is None else stream.mid
    before = set(ancestors(reader.trace, stream.mlp.names[0], frozenset(names_of(reader.trace, start))))
    within = list(reader.within(span))
    made = [visit for visit in within if visit.output in before]
    owners = [visit for visit in made if _stacked(twin.get_submodule(visit.path))] or [
        visit
        for visit in made
        if reader.trace.nodes[visit.output].kind != "matrix" and _flat(twin.get_submodule(visit.path))
    ]
    around = [
        visit
        for visit in within
        if owners
        and all(owner == visit or owner.inside(visit) for owner in owners)
        and visit.inputs
        and reader.layout.fits(visit.inputs[0])
    ]
    return min(around, key=lambda visit: visit.span[1] - visit.span[0], default=None)


def _stacked(module: nn.Module) -> dict[str, Tensor]:
    """Its own matrices, of several experts one behind the other."""
    own = ((name, p) for name, p in module._parameters.items() if p is not None and p.dim() == 3 and len(p) > 1)
    return {name: p for name, p in own if p.stride(0) == max(p.stride())}


def _flat(module: nn.Module) -> dict[str, Tensor]:
    """Its own matrices, each of which may hold several experts' rows one behind the other (DBRX)."""
    return {name: p for name, p in module._parameters.items() if p is not None and p.dim() == 2 and p.is_contiguous()}


def _at_last_weights(twin: nn.Module, run: Callable[[], Any], mixtures: Mapping[int, Place]) -> dict[int, Place]:
    """The places at the units in front of the last weights that each mixture uses, in one run."""
    watches = {place.path: _Using(twin.get_submodule(place.path)) for place in mixtures.values()}
    with ExitStack() as stack:
        for path, watch in watches.items():
            wrapping(stack, twin.get_submodule(path), watch.around)
        if watches:
            run()
    last = {path: watch.last for path, watch in watches.items()}
    return {
        number: replace(place, reads="experts", experts=f"{place.path}.{name}".lstrip("."), matrices=matrices)
        for number, place in mixtures.items()
        for name, matrices in [last[place.path]]
        if name
    }


class _Using(TorchFunctionMode):
    """In force while the module runs, it notes which of its parameters was used last as matrices of several experts,
    and of how many."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.last = ("", 0)
        self._names = {
            id(parameter): f"{path}.{name}".lstrip(".")
            for path, part in module.named_modules()
            for name, parameter in (_stacked(part) | _flat(part)).items()
        }

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return forward(*args, **kwargs)

        return run

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        with DisableTorchFunction():
            known = ((arg, self._names.get(id(arg))) for arg in args if isinstance(arg, Tensor))
            for arg, name in known:
                stacked = arg if arg.dim() == 3 else output
                viewed = isinstance(stacked, Tensor) and stacked.dim() == 3 and stacked.data_ptr() == arg.data_ptr()
                if name and viewed and getattr(func, "__name__", "") != "__get__":
                    self.last = (name, len(stacked))
        return output


def _proved(twin: nn.Module, run: Callable[[], Any], places: Mapping[int, Place]) -> dict[int, int]:
    """How many units each place holds, of those at which every position has its own."""
    made = {place: replace(place, reads="output", experts="", matrices=0) for place in places.values()}
    try:
        with torch.enable_grad(), reading(twin, [*made, *made.values()]) as found:
            run()
    except UnsupportedModel:
        return {}
    return {
        number: found.values[place].shape[-1]
        for number, place in places.items()
        if place in found.edges and _own_rows(found, place, made[place])
    }


def _own_rows(found: Readings, units: Place, made: Place) -> bool:
    """Whether each position of what a mixture makes is made from units of that position alone."""
    shape, rows = found.values[made].shape, len(found.values[units])
    weights = torch.linspace(1.0, 2.0, shape[-1]).to(found.values[made])
    for row in range(rows):
        wanted = torch.zeros_like(found.values[made]).reshape(rows, -1)
        wanted[row] = weights
        (gradient,) = torch.autograd.grad(
            [found.edges[made]], [found.edges[units]], [wanted.reshape(shape)], retain_graph=True
        )
        if gradient.any(1).nonzero()[:, 0].tolist() != [row]:
            return False
    return True
