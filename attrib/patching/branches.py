"""One branch of the residual stream: a tensor that is added to it, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attrib.patching.trace import Trace


@dataclass(frozen=True)
class Branch:
    """What is added to the stream at one sum. Numbers are nodes of the trace.

    names: the added tensor, and those it is another view or multiple of. source: what of the stream it is made from.
    matrix, made, read: the module whose weights make it, the tensor it puts out and the one it reads; None where there
    is no single one. attention: the nodes of attention inside, none for an MLP; behind: the weight matrices behind
    these. mixes: whether the last position hears of those before it.
    """

    names: tuple[int, ...]
    source: int
    matrix: str | None
    made: int | None
    read: int | None
    attention: tuple[int, ...]
    behind: tuple[int, ...]
    mixes: bool


def branch_of(trace: Trace, node: int, stops: frozenset[int]) -> Branch:
    before = [n for n in ancestors(trace, node, stops) if n >= min(stops)]  # not what earlier layers have made
    read_from = max((i for n in before for i in trace.nodes[n].inputs if i in stops), default=None)
    attention = tuple(n for n in before if trace.nodes[n].kind == "attention" and _attends(trace, n, read_from))
    surely = any(trace.heads[n].axis == -3 for n in attention)
    mixes = surely or (read_from is not None and _mixes(trace, node, read_from))
    attention = attention if mixes else ()
    matrix = _last_matrix(trace, node, through_gate=not attention)
    made = None if matrix is None else trace.nodes[matrix]
    path, read = (None, None) if made is None else (made.path, made.inputs[0])
    source = names_of(trace, min(stops) if read_from is None else read_from)[-1]
    behind = _behind(trace, attention, before)
    return Branch(names_of(trace, node), source, path, matrix, read, attention, behind, mixes)


def _attends(trace: Trace, node: int, read: int | None) -> bool:
    """False for a router's weights over as many experts as there are tokens: each position's are made from it alone."""
    made, last = trace.tensors[node], trace.tokens - 1
    if read is None or made.dim() != 3 or len(made) != 1 or not made.requires_grad:
        return True
    weights = torch.linspace(1.0, 2.0, made.shape[-1], dtype=made.dtype, device=made.device)
    (gradient,) = torch.autograd.grad(
        (made[0, last] * weights).sum(), [trace.tensors[read]], retain_graph=True, allow_unused=True
    )
    rows = None if gradient is None else trace.like(read, gradient)
    return rows is None or not rows.any() or bool(rows.reshape(-1, rows.shape[-1])[:last].any())


def _behind(trace: Trace, attention: tuple[int, ...], before: list[int]) -> tuple[int, ...]:
    """The weight matrices among `before` that are made from attention, in order."""
    found = set(attention)
    for node in sorted(before):
        if found & set(trace.nodes[node].inputs):
            found.add(node)
    return tuple(node for node in sorted(found) if trace.nodes[node].kind == "matrix")


def _mixes(trace: Trace, node: int, read: int) -> bool:
    """Whether the tensor at its last position depends on what is read at those before."""
    if node in trace.changed:  # what it was is lost
        return any(_mixes(trace, i, read) for i in trace.nodes[node].inputs if i != read)
    made, last = trace.rows(node), trace.tokens - 1
    if not made.requires_grad:
        return False
    score = made.reshape(-1, made.shape[-1])[last].sum()
    given = trace.tensors[read]
    (gradient,) = torch.autograd.grad(score, [given], retain_graph=True, allow_unused=True, materialize_grads=True)
    rows = trace.like(read, gradient)
    return bool(rows.reshape(-1, rows.shape[-1])[:last].any())


def _last_matrix(trace: Trace, node: int, through_gate: bool = False) -> int | None:
    """The weight matrix that makes the tensor, up to scales, norms, biases and views; through_gate: also where that is
    multiplied with what no weight matrix makes so (the squashed receptance of RWKV's MLP)."""
    made = trace.nodes[node]
    while made.kind in ("alias", "scaled", "pointwise", "sum"):
        carrying = [i for i in made.inputs if trace.tensors[i].requires_grad]
        if len(carrying) != 1:
            return None
        node = carrying[0]
        made = trace.nodes[node]
    if through_gate and made.kind == "gated":
        matrices = [found for i in made.inputs if (found := _last_matrix(trace, i)) is not None]
        return matrices[0] if len(matrices) == 1 else None
    return node if made.kind == "matrix" else None


def names_of(trace: Trace, node: int) -> tuple[int, ...]:
    """The node and what it is only another view or multiple of."""
    found = [node]
    while trace.nodes[found[-1]].kind in ("alias", "scaled"):
        found.append(trace.nodes[found[-1]].inputs[0])
    return tuple(found)


def shifted_names(trace: Trace, names: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the tensor that constants were added to, to make the last of `names`; again if need be."""
    found: tuple[int, ...] = ()
    while trace.nodes[names[-1]].kind == "sum":
        carrying = [i for i in trace.nodes[names[-1]].inputs if trace.tensors[i].requires_grad]
        if len(carrying) != 1:
            break
        names = names_of(trace, carrying[0])
        found += names
    return found


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
