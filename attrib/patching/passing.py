"""What a tensor passes on its way without being read by anything else: norms, factors, and weights of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from attrib.patching.structure import Norm, Passing, Weight
from attrib.patching.trace import Trace


def passed(trace: Trace, start: int, node: int) -> tuple[Passing, ...] | None:
    """What a tensor passes from `start` to `node`; None where that is more than norms, factors and weights."""
    found: list[Passing] = []
    while node != start:
        steps = _step(trace, node)
        if steps is None:
            return None
        found += reversed(steps)
        node = next(i for i in trace.nodes[node].inputs if trace.tensors[i].requires_grad)
    return tuple(reversed(found))


def _step(trace: Trace, node: int) -> Sequence[Passing] | None:
    """What one operation does to the one tensor that it reads, if nothing but that."""
    made = trace.nodes[node]
    carrying = [i for i in made.inputs if trace.tensors[i].requires_grad]
    if len(carrying) != 1:
        return None
    if made.kind == "scaled":
        weight = None if made.by is None else trace.weight_of(made.by)
        factor = made.factor if weight is None else Weight(weight, "scale")
        return None if factor is None else (factor,)
    if made.kind == "pointwise":
        same = torch.equal(trace.tensors[node], trace.tensors[carrying[0]])  # dropout, say
        visit = next(visit for visit in trace.visits_of(made.path) if visit.output == node)
        return () if same else (Norm(made.path, trace.call_of(visit)),) if len(made.inputs) == 1 else None
    if made.kind == "sum":
        return shifts_of(trace, [i for i in made.inputs if i not in carrying])
    return () if made.kind == "alias" else None


def shifts_of(trace: Trace, constants: Sequence[int]) -> list[Passing] | None:
    """What adding these does; None where one is no weight of the model. Nought does nothing."""
    found: list[Passing] = []
    for node in constants:
        weight = trace.weight_of(node)
        if weight is None and bool(trace.tensors[node].any()):
            return None
        found += [] if weight is None else [Weight(weight, "shift")]
    return found
