"""The additions to a stream of hidden states, walked back from one tensor of it to an earlier one."""

from __future__ import annotations

from dataclasses import dataclass

from attrib.patching.branches import ancestors, branch_of, names_of
from attrib.patching.trace import Trace


@dataclass(frozen=True)
class Sum:
    """One addition to the stream: the sum, what the stream was before, what was added, and which constants were.

    Where the stream begins anew, `node` is what was `added`, and `before` is read but no part of it. Where a position's
    rows are mixed, `before` is what they were before that."""

    node: int
    before: int
    added: tuple[int, ...]
    constants: tuple[int, ...]


def sums_back(trace: Trace, node: int, start: int) -> list[Sum] | None:
    """The sums between the block's input `start` and `node`, in the order they happen; None where there is no way."""
    if node == start:
        return []
    made = trace.nodes[node]
    if made.kind in ("alias", "scaled", "pointwise"):  # a norm behind the sum is on the stream too
        return sums_back(trace, made.inputs[0], start)
    if made.kind != "sum":
        return None
    for i, operand in enumerate(made.inputs):
        before = _apart(trace, operand)
        earlier = sums_back(trace, before, start)
        if earlier is not None:
            parts = [part for j, other in enumerate(made.inputs) if j != i for part in _summands(trace, other)]
            added = tuple(part for part in parts if trace.tensors[part].requires_grad)
            return [*earlier, Sum(node, before, added, tuple(part for part in parts if part not in added))]
    return None


def _summands(trace: Trace, node: int) -> list[int]:
    """The tensors whose sum this is; what one module adds up is taken whole."""
    made = trace.nodes[node]
    if made.kind == "sum" and not any(visit.output == node for visit in trace.visits):
        return [part for operand in made.inputs for part in _summands(trace, operand)]
    return [node]


def _apart(trace: Trace, node: int) -> int:
    """The stream before a matrix for each position mixed the several rows that it has there (hyper-connections)."""
    made, shape = trace.nodes[node], trace.tensors[node].shape
    product = made.operation is not None and made.operation[0] in ("matmul", "__matmul__") and trace.has_parts(node)
    rows = [i for i in made.inputs if trace.tensors[i].shape == shape] if product else []
    return rows[0] if len(rows) == 1 else node


def begun_anew(trace: Trace, end: int, start: int) -> list[Sum] | None:
    """The sums back to the first contribution, where the stream does not go on from `start` but begins anew with what
    mixes positions (Inkling 2); None where that is not so."""
    first = end
    while first == end or _passes(trace, first):
        carrying = sorted(i for i in trace.nodes[first].inputs if trace.tensors[i].requires_grad)
        if not carrying or not all(carrying[0] in ancestors(trace, i, frozenset()) for i in carrying[1:]):
            return None
        first = carrying[0]
    sums = sums_back(trace, end, first)
    mixes = sums and branch_of(trace, first, frozenset(names_of(trace, start))).mixes
    return [Sum(first, start, (first,), ()), *sums] if sums and mixes else None


def _passes(trace: Trace, node: int) -> bool:
    """Whether the stream goes through it: a norm, or what no module makes whole."""
    kind = trace.nodes[node].kind
    made = any(visit.output == node for visit in trace.visits)
    return kind == "pointwise" or (kind in ("alias", "scaled", "sum") and not made)
