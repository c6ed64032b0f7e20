"""The residual stream of one block, walked back from the block's output through its sums to its input."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attrib.patching.branches import Branch, ancestors, branch_of, names_of
from attrib.patching.structure import Norm, Passing
from attrib.patching.trace import Trace


@dataclass(frozen=True)
class Stream:
    """At most one attention, one other mixer of positions and one MLP, and the stream between MLP and those; None where
    they run in parallel. heads: 0 without attention. plain: whether the contribution of attention is nothing but its
    output projection: no MLP is inside (MobileBERT).

    course: what happens to the stream, in order; None where that is more than sums, norms and factors.
    """

    attention: Branch | None
    mixer: Branch | None
    mlp: Branch | None
    mid: int | None
    heads: int
    plain: bool
    course: tuple[Branch | Passing, ...] | None


@dataclass(frozen=True)
class _Sum:
    """One addition to the stream: the sum, what the stream was before, and what was added."""

    node: int
    before: int
    added: tuple[int, ...]


def stream_of(trace: Trace, start: int, end: int) -> Stream | None:
    """The stream from one node to a later one; None where more is added than one attention, one mixer and one MLP."""
    sums = _sums_back(trace, end, start)
    if not sums:
        return None
    branches = _branches(trace, sums)
    places = {branch: i for i, group in enumerate(branches) for branch in group}
    attending = [branch for branch in places if branch.attention]
    mixing = [branch for branch in places if branch.mixes and not branch.attention]
    mlps = [branch for branch in places if not branch.mixes]
    if not mlps and not attending and len(mixing) == 2:
        mlps = [mixing.pop()]  # RWKV's MLP reads the token before, too
    if max(len(attending), len(mixing), len(mlps)) > 1:
        return None
    attention, mixer, mlp = (next(iter(kind), None) for kind in (attending, mixing, mlps))
    heads = {trace.heads[node].count for node in attention.attention} if attention is not None else {0}
    last = max((places[branch] for branch in (attention, mixer) if branch is not None), default=-1)
    if len(heads) != 1 or (mlp is not None and places[mlp] < last):
        return None
    mid = sums[places[mlp]].before if mlp is not None and places[mlp] > last >= 0 else None
    stops = _stops(trace, sums)
    if mid is not None and mlp is not None and not _read_on_the_way(trace, mlp.names[0], mid, stops):
        mid = None  # the sum is made one after the other, but the MLP reads the block's input as attention does
    plain = attention is None or len(attention.behind) <= 1
    return Stream(attention, mixer, mlp, mid, heads.pop(), plain, _course(trace, (start, end), sums, branches))


def regions_of(trace: Trace, start: int, end: int) -> list[tuple[int, int]]:
    """(first node, last node) of each layer of a stream that no modules divide: each begins where positions are mixed.

    The last ends where as many norms have been passed behind its last sum as in the layer before it.
    """
    sums = _sums_back(trace, end, start) or []
    mixing = [i for i, group in enumerate(_branches(trace, sums)) if any(branch.mixes for branch in group)]
    starts = [sums[i].before for i in mixing]
    if len(starts) < 2:
        return []
    behind = len(_single_steps(trace, sums[mixing[-1] - 1].node, starts[-1]))
    last = _single_steps(trace, sums[-1].node, end)[:behind]
    return list(zip(starts, [*starts[1:], last[-1]], strict=True))


def _single_steps(trace: Trace, start: int, node: int) -> list[int]:
    """The nodes from `start` to `node`, in order, each made of the one before."""
    found = [node]
    while found[-1] != start:
        found.append(next(i for i in trace.nodes[found[-1]].inputs if trace.tensors[i].requires_grad))
    return found[::-1]


def _branches(trace: Trace, sums: list[_Sum]) -> list[list[Branch]]:
    stops = _stops(trace, sums)
    return [[branch_of(trace, node, stops) for node in each.added] for each in sums]


def _stops(trace: Trace, sums: list[_Sum]) -> frozenset[int]:
    return frozenset(node for each in sums for node in names_of(trace, each.before))


def _course(
    trace: Trace, ends: tuple[int, int], sums: list[_Sum], branches: list[list[Branch]]
) -> tuple[Branch | Passing, ...] | None:
    course: list[Branch | Passing] = []
    behind = ends[0]
    for each, added in zip(sums, branches, strict=True):
        passing = passed(trace, behind, each.before)
        if passing is None:
            return None
        course += [*passing, *added]
        behind = each.node
    passing = passed(trace, behind, ends[1])
    return None if passing is None else (*course, *passing)


def passed(trace: Trace, start: int, node: int) -> tuple[Passing, ...] | None:
    """What a tensor passes from `start` to `node`; None where that is more than norms and factors."""
    found: list[Passing] = []
    while node != start:
        made = trace.nodes[node]
        if made.kind == "scaled" and made.factor is not None:
            found.append(made.factor)
        elif made.kind == "pointwise" and len(made.inputs) == 1:
            same = torch.equal(trace.tensors[node], trace.tensors[made.inputs[0]])  # dropout, say
            visit = next(visit for visit in trace.visits_of(made.path) if visit.output == node)
            found += [] if same else [Norm(made.path, trace.call_of(visit))]
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
    return [node] if trace.tensors[node].requires_grad else []


def _read_on_the_way(trace: Trace, node: int, read: int, stops: frozenset[int]) -> bool:
    """Whether `node` was made from `read`, going back no further than `stops`."""
    return any(set(names_of(trace, read)) & set(trace.nodes[n].inputs) for n in ancestors(trace, node, stops))
