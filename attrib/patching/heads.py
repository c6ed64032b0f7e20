"""Where the outputs of attention's heads lie side by side, and how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attrib.patching.branches import Branch, ancestors
from attrib.patching.layout import Layout
from attrib.patching.trace import Trace


@dataclass(frozen=True)
class Attending:
    """One attention. start: the stream's node that it is made from; z: the one that holds the outputs of its heads side
    by side, the last that does; first: the first that does, before gates and norms; count: of heads; attention: the
    nodes of its softmax or fused calls; projected: whether the output projection reads z and nothing else."""

    start: int
    z: int
    first: int
    count: int
    attention: tuple[int, ...]
    projected: bool


def attending(trace: Trace, layout: Layout, branch: Branch) -> Attending | None:
    """None where heads lie side by side nowhere."""
    heads, attention = trace.heads[branch.attention[0]].count, branch.attention
    z = _in_front_of_the_projection(trace, layout, branch, heads)
    if z is not None:
        return Attending(branch.source, z, z, heads, attention, True)
    made = [node for node in _made_from(trace, branch) if layout.fits(node)]
    for count in (n for n in range(heads, 1, -1) if heads % n == 0):
        apart = [node for node in made if _apart(trace, layout.rows(node), attention, count)]
        if apart:
            return Attending(branch.source, apart[-1], apart[0], count, attention, False)
    return None


def _in_front_of_the_projection(trace: Trace, layout: Layout, branch: Branch, heads: int) -> int | None:
    """What the first weight matrix behind attention reads, or a norm over all heads does in front of it (BitNet)."""
    if not branch.behind:
        return None
    node = trace.nodes[branch.behind[0]].inputs[0]
    while not (layout.fits(node) and _apart(trace, layout.rows(node), branch.attention, heads)):
        if trace.nodes[node].kind != "pointwise":
            return None
        node = trace.nodes[node].inputs[0]
    return node


def _made_from(trace: Trace, branch: Branch) -> Iterator[int]:
    """What is made from all of attention on the way to the contribution, in order."""
    found = {node: {node} for node in branch.attention}
    for node in sorted(ancestors(trace, branch.names[0], frozenset())):
        heard = set().union(*(found.get(i, ()) for i in trace.nodes[node].inputs))
        if not heard or node in trace.changed:
            continue
        found[node] = heard | found.get(node, set())
        if heard == set(branch.attention):
            yield node


def _apart(trace: Trace, tensor: Tensor, attention: Sequence[int], count: int) -> bool:
    """Whether `count` groups of columns, one as wide as the other, are of equally many heads of attention each."""
    heads, axis = trace.heads[attention[0]].count, trace.heads[attention[0]].axis
    attended = [trace.tensors[node] for node in attention]
    if tensor.shape[-1] % count or not all(each.requires_grad for each in (tensor, *attended)):
        return False
    weights = torch.linspace(1.0, 2.0, tensor.shape[-1] // count, dtype=tensor.dtype, device=tensor.device)
    found: set[int] = set()
    for group in range(count):
        own = tensor.unflatten(-1, (count, -1))[..., group, :]
        gradients = torch.autograd.grad((own * weights).sum(), attended, retain_graph=True, allow_unused=True)
        acts = [g.movedim(axis, -3).flatten(0, -3).flatten(1).any(1) for g in gradients if g is not None]
        of = {int(i) for each in acts for i in each.nonzero()}
        if len(of) != heads // count or found & of or (count == heads and of != {group}):
            return False
        found |= of
    return True
