"""The residual stream of one block, walked back from the block's output through its sums to its input."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attrib.patching.structure import Passing
from attrib.patching.trace import Trace, Visit


@dataclass(frozen=True)
class Branch:
    """What is added to the stream at one sum. Numbers are nodes of the trace.

    names: the added tensor, and those it is another view or multiple of.
    matrix, made, read: the module whose weights make it, the tensor it puts out and the one it reads; None where there
    is no single one. attention: the nodes of attention inside, none for an MLP.
    """

    names: tuple[int, ...]
    matrix: str | None
    made: int | None
    read: int | None
    attention: tuple[int, ...]


@dataclass(frozen=True)
class Stream:
    """One attention, at most one MLP, and the stream between them; None where they run in parallel.

    course: what happens to the stream, in order; None where that is more than sums, norms and factors.
    """

    attention: Branch
    mlp: Branch | None
    mid: int | None
    heads: int
    course: tuple[Branch | Passing, ...] | None


@dataclass(frozen=True)
class _Sum:
    """One addition to the stream: the sum, what the stream was before, and what was added."""

    node: int
    before: int
    added: tuple[int, ...]


def stream_of(trace: Trace, block: Visit) -> Stream | None:
    """None where the block's output is not its input with one attention and at most one MLP added."""
    start = block.inputs[0]
    sums = _sums_back(trace, block.output, start)
    if not sums:
        return None
    stops = frozenset(node for each in sums for node in _names(trace, each.before))
    branches = [[_branch(trace, node, stops) for node in each.added] for each in sums]
    attending = [(i, b) for i, group in enumerate(branches) for b in group if b.attention]
    others = [(i, b) for i, group in enumerate(branches) for b in group if not b.attention]
    if len(attending) != 1 or len(others) > 1:
        return None
    (place, attention), mlp = attending[0], others[0] if others else None
    heads = {trace.heads[node] for node in attention.attention}
    if len(heads) != 1 or (mlp is not None and mlp[0] < place):
        return None
    mid = sums[mlp[0]].before if mlp is not None and mlp[0] > place else None
    if mid is not None and mlp is not None and not _read_on_the_way(trace, mlp[1].names[0], mid, stops):
        mid = None  # the sum is made one after the other, but the MLP reads the block's input as attention does
    course = _course(trace, block, sums, branches)
    return Stream(attention, None if mlp is None else mlp[1], mid, heads.pop(), course)


def _course(
    trace: Trace, block: Visit, sums: list[_Sum], branches: list[list[Branch]]
) -> tuple[Branch | Passing, ...] | None:
    course: list[Branch | Passing] = []
    behind = block.inputs[0]
    for each, added in zip(sums, branches, strict=True):
        passing = passed(trace, behind, each.before)
        if passing is None:
            return None
        course += [*passing, *added]
        behind = each.node
    passing = passed(trace, behind, block.output)
    return None if passing is None else (*course, *passing)


def passed(trace: Trace, start: int, node: int) -> tuple[Passing, ...] | None:
    """What a tensor passes from `start` to `node`; None where that is more than norms and factors, each once."""
    found: list[Passing] = []
    while node != start:
        made = trace.nodes[node]
        if made.kind == "scaled" and made.factor is not None:
            found.append(made.factor)
        elif made.kind == "pointwise" and len(made.inputs) == len(trace.visits_of(made.path)) == 1:
            same = torch.equal(trace.tensors[node], trace.tensors[made.inputs[0]])  # dropout, say
            found += [] if same else [made.path]
        elif made.kind != "alias":
            return None
        node = made.inputs[0]
    return tuple(reversed(found))


def _sums_back(trace: Trace, node: int, start: int) -> list[_Sum] | None:
    """The sums between the block's input `start` and `node`, in the order they happen; None where there is no way."""
    if node == start:
        return []
    made = trace.nodes[node]
    if made.kind in ("alias", "scaled", "pointwise"):  # a norm behind the sum is on the stream too
        return _sums_back(trace, made.inputs[0], start)
    if made.kind != "sum":
        return None
    for i, operand in enumerate(made.inputs):
        earlier = _sums_back(trace, operand, start)
        if earlier is not None:
            added = [part for j, other in enumerate(made.inputs) if j != i for part in _summands(trace, other)]
            return [*earlier, _Sum(node, operand, tuple(added))]
    return None


def _summands(trace: Trace, node: int) -> list[int]:
    """The tensors whose sum this is; constants of the model left out, and what one module adds up taken whole."""
    made = trace.nodes[node]
    if made.kind == "sum" and not any(visit.output == node for visit in trace.visits):
        return [part for operand in made.inputs for part in _summands(trace, operand)]
    return [] if made.kind == "source" else [node]


def _names(trace: Trace, node: int) -> tuple[int, ...]:
    """The node and what it is only another view or multiple of."""
    found = [node]
    while trace.nodes[found[-1]].kind in ("alias", "scaled"):
        found.append(trace.nodes[found[-1]].inputs[0])
    return tuple(found)


def _branch(trace: Trace, node: int, stops: frozenset[int]) -> Branch:
    matrix = _last_matrix(trace, node)
    made = None if matrix is None else trace.nodes[matrix]
    attention = tuple(n for n in ancestors(trace, node, stops) if trace.nodes[n].kind == "attention")
    path, read = (None, None) if made is None else (made.path, made.inputs[0])
    return Branch(_names(trace, node), path, matrix, read, attention)


def _read_on_the_way(trace: Trace, node: int, read: int, stops: frozenset[int]) -> bool:
    """Whether `node` was made from `read`, going back no further than `stops`."""
    return any(set(_names(trace, read)) & set(trace.nodes[n].inputs) for n in ancestors(trace, node, stops))


def _last_matrix(trace: Trace, node: int) -> int | None:
    """The weight matrix that makes the tensor, up to scales, norms, biases and views."""
    made = trace.nodes[node]
    while made.kind in ("alias", "scaled", "pointwise", "sum"):
        carrying = [i for i in made.inputs if trace.nodes[i].kind != "source"]
        if len(carrying) != 1:
            return None
        node = carrying[0]
        made = trace.nodes[node]
    return node if made.kind == "matrix" else None


def ancestors(trace: Trace, node: int, stops: frozenset[int]) -> list[int]:
    """Every tensor that `node` was made from, not going past `stops`; the node itself first."""
    found: dict[int, None] = {}
    pending = [node]
    while pending:
        current = pending.pop()
        if current in found or current in stops:
            continue
        found[current] = None
        pending += trace.nodes[current].inputs
    return list(found)
