"""The residual stream of one block, walked back from the block's output through its sums to its input."""

from __future__ import annotations

from dataclasses import dataclass

from attrib.patching.branches import Branch, ancestors, branch_of, names_of
from attrib.patching.passing import passed, shifts_of
from attrib.patching.structure import Step
from attrib.patching.sums import Sum, begun_anew, sums_back
from attrib.patching.trace import Trace


@dataclass(frozen=True)
class Stream:
    """Attentions, at most one other mixer of positions and one MLP, and the stream between MLP and those; None where
    they run in parallel.
    further: MLPs stacked behind that one. plain: whether the contribution of each attention is nothing but its output
    projection: no MLP is inside (MobileBERT). fixed: whether something is added that is the same for every prompt and
    no weight.

    course: what happens to the stream, in order; None where that is more than sums, norms and factors.
    """

    attentions: tuple[Branch, ...]
    mixer: Branch | None
    mlp: Branch | None
    mid: int | None
    plain: bool
    further: tuple[Branch, ...]
    fixed: bool
    course: tuple[Branch | Step, ...] | None

    @property
    def handed_on(self) -> bool:
        """Whether the MLP is made of what attention makes, which is added nowhere itself (Zamba)."""
        if self.mlp is None or self.mid is not None:  # a stream that begins anew with it (Inkling 2)
            return False
        return any(self.mlp.source in branch.names for branch in self.attentions)


def stream_of(trace: Trace, start: int, end: int, stacked: bool = False, source: int | None = None) -> Stream | None:
    """The stream from one node to a later one; None where more is added than one attention, one mixer and one MLP.

    stacked: whether more attentions and MLPs may follow. source: what contributions may be made from besides the
    stream.
    """
    sums = sums_back(trace, end, start) or begun_anew(trace, end, start)
    if not sums:
        return None
    stops = _stops(trace, sums) | ({source} if source is not None else set())
    branches = _branches(trace, sums, stops)
    places = {branch: i for i, group in enumerate(branches) for branch in group}
    attending = [branch for branch in places if branch.attention]
    mixing = [branch for branch in places if branch.mixes and not branch.attention]
    mlps = [branch for branch in places if not branch.mixes]
    if not mlps and mixing and len(attending) + len(mixing) == 2 and places[mixing[-1]] == max(places.values()):
        mlps = [mixing.pop()]  # RWKV's MLP reads the token before, too
    behind = mlps[1:] if stacked and (attending or mixing) else []
    if max(1 if stacked else len(attending), len(mixing), len(mlps) - len(behind)) > 1:
        return None
    mixer, mlp = (next(iter(kind), None) for kind in (mixing, mlps))
    last = max((places[branch] for branch in (*attending[:1], *mixing)), default=-1)
    alike = all(len({trace.heads[node].count for node in branch.attention}) == 1 for branch in attending)
    if not alike or (mlp is not None and places[mlp] < last):
        return None
    # where the sum is made one after the other, the MLP may still read the block's input as attention does
    joins = mlp is not None and places[mlp] > last >= 0
    mid = _read_on_the_way(trace, mlp.names[0], sums[: places[mlp] + 1], stops) if joins and mlp else None
    plain = all(_in_a_row(trace, branch.behind) for branch in attending)
    fixed = any(shifts_of(trace, each.constants) is None for each in sums)
    course = None if behind or len(attending) > 1 else _course(trace, (start, end), sums, branches, mid)
    return Stream(tuple(attending), mixer, mlp, mid, plain, tuple(behind), fixed, course)


def regions_of(trace: Trace, start: int, end: int) -> list[tuple[int, int]]:
    """(first node, last node) of each layer of a stream that no modules divide: each begins where positions are mixed.

    The last ends where as many norms have been passed behind its last sum as in the layer before it.
    """
    sums = sums_back(trace, end, start) or []
    mixing = [
        i
        for i, group in enumerate(_branches(trace, sums, _stops(trace, sums)))
        if any(branch.mixes for branch in group)
    ]
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


def _branches(trace: Trace, sums: list[Sum], stops: frozenset[int]) -> list[list[Branch]]:
    return [[branch_of(trace, node, stops - _own(trace, each, node)) for node in each.added] for each in sums]


def _own(trace: Trace, each: Sum, node: int) -> frozenset[int]:
    """The names of a contribution that is the stream from there on."""
    return frozenset(names_of(trace, node)) if node == each.node else frozenset()


def _stops(trace: Trace, sums: list[Sum]) -> frozenset[int]:
    return frozenset(node for each in sums for node in names_of(trace, each.before))


def _course(
    trace: Trace, ends: tuple[int, int], sums: list[Sum], branches: list[list[Branch]], mid: int | None
) -> tuple[Branch | Step, ...] | None:
    course: list[Branch | Step] = []
    behind = ends[0]
    for each, added in zip(sums, branches, strict=True):
        passing, shifts = _passed_mid(trace, behind, each.before, mid), shifts_of(trace, each.constants)
        goes_on = trace.nodes[each.node].kind == "sum" and each.before in trace.nodes[each.node].inputs
        if passing is None or shifts is None or not goes_on:
            return None
        course += [*passing, *added, *shifts]
        behind = each.node
    passing = passed(trace, behind, ends[1])
    return None if passing is None else (*course, *passing)


def _passed_mid(trace: Trace, start: int, node: int, mid: int | None) -> tuple[Step, ...] | None:
    """What the stream passes, and where it is `mid` on the way."""
    if mid is None or mid < start or mid not in names_of(trace, node):
        return passed(trace, start, node)
    before, after = passed(trace, start, mid), passed(trace, mid, node)
    return None if before is None or after is None else (*before, "mid", *after)


def _read_on_the_way(trace: Trace, node: int, sums: list[Sum], stops: frozenset[int]) -> int | None:
    """Which view or multiple of the stream in front of the last sum (and of those before it that add constants alone)
    the node was made from, going back no further than `stops`."""
    given = {i for n in ancestors(trace, node, stops) for i in trace.nodes[n].inputs}
    names = list(names_of(trace, sums[-1].before))
    while len(sums) > 1 and not sums[-2].added:
        sums = sums[:-1]
        names += names_of(trace, sums[-1].before)
    return next((name for name in names if name in given), None)


def _in_a_row(trace: Trace, matrices: tuple[int, ...]) -> bool:
    """Whether each reads what the one before it makes, and nothing else: one projection of low rank (DeepSeek-V4)."""
    given = [names_of(trace, trace.nodes[node].inputs[0])[-1] for node in matrices[1:]]
    return given == list(matrices[:-1])
