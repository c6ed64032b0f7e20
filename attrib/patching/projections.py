"""The projections of each layer's attention: which tensors may hold its queries, keys and values, and which do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from attrib.patching.acting import KINDS, Projected, acting
from attrib.patching.branches import ancestors
from attrib.patching.columns import Found, columns_of
from attrib.patching.heads import Attending
from attrib.patching.places import numbers_of, width_of
from attrib.patching.structure import Attention, Projection
from attrib.patching.trace import Trace

if TYPE_CHECKING:
    from attrib.patching.layers import Reader

_PARTS = "head.*.*.q, k, v"
_PRODUCTS = frozenset({"__matmul__", "baddbmm", "bmm", "einsum", "linear", "matmul", "mm"})
_Nodes = list[tuple[int, int]]  # (node, which matrix it belongs to)


@dataclass(frozen=True)
class _Read:
    """nodes: the tensors in which `found` says where the parts are."""

    nodes: _Nodes
    found: Found


def with_projections(
    reader: Reader, attentions: Sequence[Attention], attending: Sequence[Attending | None]
) -> tuple[list[Attention], int, bool]:
    """(the attentions with their projections, how many key-value heads, 0 where they differ; whether attention is made
    of these and of nothing else that its input goes into).

    Attentions of one width everywhere are alike: the columns of the first that shows them clearly hold for all.
    """
    alike: dict[tuple[object, ...], Found] = {}
    nodes = [[] if each is None else _projections(reader, each) for each in attending]
    keys = [_widths(reader, own, each) for own, each in zip(nodes, attending, strict=True)]
    for own, each, key in zip(nodes, attending, keys, strict=True):
        if each is not None and len(alike.get(key, ())) < len(KINDS):
            alike[key] = _columns(reader, own, each) | alike.get(key, {})
    read = [
        None if each is None else _with_made(reader, _Read(own, alike[key]), each)
        for own, each, key in zip(nodes, attending, keys, strict=True)
    ]
    full = [
        attention if own is None else _projected(reader, attention, own)
        for attention, own in zip(attentions, read, strict=True)
    ]
    lacking = [kind for kind in KINDS if any(own is not None and kind not in own.found for own in read)]
    if lacking and any(read):
        reader.miss(_PARTS, f"{' and '.join(lacking)} have no columns of their own in any projection")
    heads = {each.count for each in attending if each is not None}
    counts = {
        len(next((own.found[kind][1] for kind in ("keys", "values") if kind in own.found), range(each.count)))
        for own, each in zip(read, attending, strict=True)
        if own is not None and each is not None
    }
    kv_heads = next(iter(counts)) if len(counts) == len(heads) == 1 else 0
    whole = all(each is None or each.projected for each in attending)
    split = bool(kv_heads) and whole and not lacking and all(_covered(reader, own) for own in read if own is not None)
    return full, kv_heads, split


def _widths(reader: Reader, nodes: _Nodes, attending: Attending | None) -> tuple[object, ...]:
    return (attending and attending.count, *((reader.layout.rows(node).shape[-1], of) for node, of in nodes))


def _columns(reader: Reader, nodes: _Nodes, attending: Attending) -> Found:
    trace = reader.trace
    projected = [Projected(trace.tensors[node], reader.layout.axes(node), of) for node, of in nodes]
    outputs = _outputs(reader, attending)
    heads = acting(outputs, projected, _weights(trace, attending))
    return columns_of(heads, [of for _, of in nodes], outputs[0].shape[-1])


def _with_made(reader: Reader, read: _Read, attending: Attending) -> _Read:
    """With what no projection holds whole, as the first tensor that holds it in columns: weights that are no matrix
    (XLNet), rows gathered from experts (JetMoe), what several projections are added up to (ZAYA)."""
    parts = {kind: each for kind, each in read.found.items() if _whole(reader.trace, read.nodes[each[0]][0], attending)}
    lacking = [kind for kind in KINDS if kind not in parts]
    if not lacking:
        return read
    nodes = [node for node in _made(reader, attending) if _whole(reader.trace, node, attending, last=True)]
    trace = reader.trace
    projected = [Projected(trace.tensors[node], reader.layout.axes(node), 0) for node in nodes]
    outputs = _outputs(reader, attending)
    heads = acting(outputs, projected, _weights(trace, attending))
    own, found = list(read.nodes), dict(parts)
    for which, node in enumerate(nodes):
        alone = columns_of([each.part(which) for each in heads], [0], outputs[0].shape[-1], (True,))
        for kind in [kind for kind in lacking if kind in alone and kind not in found]:
            if kind != "values" or width_of(alone[kind][1][0]) == outputs[0].shape[-1]:  # no hidden states (Inkling 2)
                found[kind] = (len(own), alone[kind][1])
                own.append((node, -1))
    return _Read(own, found)


def _whole(trace: Trace, node: int, attending: Attending, last: bool = False) -> bool:
    """Whether nothing else made from the prompt is added to the tensor before it meets weights or other tensors. last:
    and no weight matrix reads it (an adapter's second one)."""
    alone, after = {node}, {node}
    for later in range(node + 1, attending.first):
        made = trace.nodes[later]
        carrying = {i for i in made.inputs if trace.tensors[i].requires_grad}
        added = made.kind == "sum" and not carrying <= after
        if carrying & alone and (added or (last and made.kind == "matrix")):
            return False
        after |= {later} if carrying & after else set()
        product = made.kind == "matrix" or (made.operation is not None and made.operation[0] in _PRODUCTS)
        alone |= {later} if carrying and carrying <= alone and not product else set()
    return True


def _made(reader: Reader, attending: Attending) -> list[int]:
    """What is made between the hidden states in front of attention and its heads' outputs, with rows for positions."""
    trace, layout = reader.trace, reader.layout
    before = sorted(ancestors(trace, attending.z, frozenset({attending.start})))
    made = {attending.start}  # not of earlier layers
    for node in before:
        made |= {node} if made & set(trace.nodes[node].inputs) else set()
    return [
        node
        for node in before
        if node < attending.first
        and node in made
        and trace.tensors[node].is_floating_point()
        and trace.tensors[node].requires_grad
        and layout.fits(node)
        and reader.made(node) is not None
    ]


def _covered(reader: Reader, read: _Read) -> bool:
    """Whether every column of every matrix is of some head's queries, keys or values: no gates, nothing shared; and all
    are read as they lie, side by side."""
    spans = [(read.nodes[which][1], span) for which, each in read.found.values() for span in each]
    columns = [(of, column) for of, span in spans for column in numbers_of(span)]
    own = [(of, column) for node, of in read.nodes for column in range(reader.layout.rows(node).shape[-1])]
    return set(columns) == set(own) and len(set(columns)) == len(columns) and all(len(span) == 2 for _, span in spans)


def _projected(reader: Reader, attention: Attention, read: _Read) -> Attention:
    places = {name: (reader.made(read.nodes[which][0]), columns) for name, (which, columns) in read.found.items()}
    parts = {name: Projection(place, columns) for name, (place, columns) in places.items() if place is not None}
    return replace(attention, **parts)  # type: ignore[arg-type]


def _projections(reader: Reader, attending: Attending) -> _Nodes:
    """(node, which of the matrices it belongs to) of the last weight matrices before attention, in the order they ran,
    and behind them of norms that take their output whole."""
    trace, layout = reader.trace, reader.layout
    matrices = frozenset(i for i, node in enumerate(trace.nodes) if node.kind == "matrix")
    before = ancestors(trace, attending.z, matrices | {attending.start})
    reached = {i for node in before for i in trace.nodes[node].inputs if i in matrices}
    nearest = sorted(i for i in reached if layout.fits(i) and trace.tensors[i].requires_grad)  # not positions' own
    given = {node: _upwards(trace, node) for node in sorted(before) if trace.nodes[node].kind == "pointwise"}
    norms = [(n, nearest.index(matrix)) for n, matrix in given.items() if matrix in nearest and layout.fits(n)]
    return [*((node, of) for of, node in enumerate(nearest)), *norms]


def _upwards(trace: Trace, norm: int) -> int:
    """What the norm takes, where it was before it was only seen otherwise."""
    node = trace.nodes[norm].inputs[0]
    while trace.nodes[node].kind == "alias":
        node = trace.nodes[node].inputs[0]
    return node


def _weights(trace: Trace, attending: Attending) -> list[Tensor]:
    """Attention's weights, or what a fused call makes them from."""
    nodes = [i for node in attending.attention for i in trace.heads[node].weights or (node,)]
    return [trace.tensors[i] for i in dict.fromkeys(nodes) if trace.tensors[i].requires_grad]


def _outputs(reader: Reader, attending: Attending) -> list[Tensor]:
    """(tokens, width) of each head: what attention puts out, before any gate (Qwen3-Next), or else its columns."""
    trace, heads = reader.trace, attending.count
    side_by_side = reader.layout.rows(attending.first)
    side_by_side = side_by_side.reshape(-1, side_by_side.shape[-1])
    node = attending.first if len(attending.attention) > 1 else attending.attention[0]
    while len(_carrying(trace, node)) == 1:  # weights, on their way to the values
        node = next(i for i in range(node + 1, attending.z + 1) if node in trace.nodes[i].inputs)
    made = trace.tensors[node]
    if made.shape[:-2].numel() == heads and made.shape[-2] == len(side_by_side):
        return list(made.reshape(heads, *made.shape[-2:])[:, : trace.tokens])
    return list(side_by_side[: trace.tokens].unflatten(-1, (heads, -1)).unbind(1))


def _carrying(trace: Trace, node: int) -> set[int]:
    return {i for i in trace.nodes[node].inputs if trace.tensors[i].requires_grad}
