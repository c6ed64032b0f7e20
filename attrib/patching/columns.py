"""Which columns of which projection are the queries, keys and values of each head, read off gradients.

With the output of a head at the last token: only that token's queries act on it; keys of all tokens act on every
component of it; a column of the values acts on one component alone. So fused, separate, interleaved and grouped
projections need no case of their own. Where a norm goes over all heads of a projection at once, its columns act on
every head; behind that norm they are each head's own. What all heads share beside their own (the rotary part of
DeepSeek's keys) is of none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attrib.patching.branches import ancestors
from attrib.patching.structure import Columns, Layer, Place, Projection
from attrib.patching.trace import Trace

if TYPE_CHECKING:
    from attrib.patching.layers import Reader

_KINDS = ("queries", "keys", "values")
_PARTS = "head.*.*.q, k, v"
# "queries" … → which projection of the block, and the columns of each head; without the kinds that were not found
_Found = dict[str, tuple[int, tuple[Columns, ...]]]


@dataclass(frozen=True, eq=False)
class _Projected:
    """What a projection, or a norm behind it, puts out. swapped: see `Place`. matrix: which one it belongs to."""

    tensor: Tensor
    swapped: tuple[int, int] | None
    matrix: int

    def rows(self, like_tensor: Tensor) -> Tensor:
        """(tokens, width) of a tensor shaped like it."""
        upright = like_tensor if self.swapped is None else like_tensor.transpose(*self.swapped)
        return upright.reshape(-1, upright.shape[-1])


def heads_apart(trace: Trace, tensor: Tensor, attention: Sequence[int]) -> bool:
    """Whether each head of attention acts on its own columns of the tensor alone, as many for each, in order."""
    heads, axis = trace.heads[attention[0]].count, trace.heads[attention[0]].axis
    if tensor.shape[-1] % heads or not tensor.requires_grad:
        return False
    attended = [trace.tensors[node] for node in attention]
    weights = torch.linspace(1.0, 2.0, tensor.shape[-1] // heads, dtype=tensor.dtype, device=tensor.device)
    for head in range(heads):
        own = tensor.unflatten(-1, (heads, -1))[..., head, :]
        gradients = torch.autograd.grad((own * weights).sum(), attended, retain_graph=True, allow_unused=True)
        acts = [g.movedim(axis, -3).flatten(0, -3).flatten(1).any(1) for g in gradients if g is not None]
        if {int(i) for each in acts for i in each.nonzero()} != {head}:
            return False
    return True


def with_projections(
    reader: Reader, layers: list[Layer], zs: Sequence[int | None], heads: int
) -> tuple[list[Layer], int, bool]:
    """(layers with their projections, how many key-value heads, whether nothing else of the input goes into attention).

    zs: the outputs of their heads. Blocks are alike: the columns of the first that shows them clearly hold for all.
    """
    trace = reader.trace
    projected = [[] if z is None else _projections(reader, z) for z in zs]
    widths = {tuple((int(reader.layout.rows(node).shape[-1]), of) for node, of in each) for each in projected if each}
    if not heads or len(widths) != 1:
        if heads:
            reader.miss(_PARTS, "blocks have different projections before attention")
        return layers, heads, False
    found: _Found = {}
    for each, z in zip(projected, zs, strict=True):
        if z is not None and len(found) < len(_KINDS):
            tensors = [_Projected(trace.tensors[node], reader.layout.swapped(node), of) for node, of in each]
            found = _columns(_outputs(reader, z, heads), tensors) | found
    places = [[reader.made_by_leaf(node) for node, _ in each] for each in projected]
    full = [_projected(layer, found, own) if own else layer for layer, own in zip(layers, places, strict=True)]
    kv_heads = next((len(found[kind][1]) for kind in ("keys", "values") if kind in found), heads)
    lacking = [kind for kind in _KINDS if kind not in found]
    if lacking:
        reader.miss(_PARTS, f"{' and '.join(lacking)} have no columns of their own in any projection")
    return full, kv_heads, not lacking and all(_covered(reader, each, found) for each in projected if each)


def _covered(reader: Reader, projected: list[tuple[int, int]], found: _Found) -> bool:
    """Whether every column of every matrix is of some head's queries, keys or values: no gates, nothing shared."""
    columns = [
        (projected[which][1], column) for which, spans in found.values() for span in spans for column in range(*span)
    ]
    own = [(of, column) for node, of in projected for column in range(reader.layout.rows(node).shape[-1])]
    return set(columns) == set(own)


def _projected(layer: Layer, found: _Found, places: Sequence[Place | None]) -> Layer:
    parts = {name: Projection(place, columns) for name, (which, columns) in found.items() if (place := places[which])}
    return replace(layer, **parts)  # type: ignore[arg-type]


def _projections(reader: Reader, read: int) -> list[tuple[int, int]]:
    """(node, which of the matrices it belongs to) of the last weight matrices before attention, in the order they ran,
    and behind them of norms that take their output whole."""
    trace, layout = reader.trace, reader.layout
    matrices = frozenset(i for i, node in enumerate(trace.nodes) if node.kind == "matrix")
    before = ancestors(trace, read, matrices)
    reached = {i for node in before for i in trace.nodes[node].inputs if i in matrices}
    nearest = sorted(i for i in reached if layout.fits(i) and trace.tensors[i].requires_grad)  # not positions' own
    given = {node: trace.nodes[node].inputs[0] for node in sorted(before) if trace.nodes[node].kind == "pointwise"}
    norms = [(n, nearest.index(matrix)) for n, matrix in given.items() if matrix in nearest and layout.fits(n)]
    return [*((node, of) for of, node in enumerate(nearest)), *norms]


def _outputs(reader: Reader, z: int, heads: int) -> list[Tensor]:
    """(tokens, width) of each head: what attention puts out, before any gate (Qwen3-Next), or else its part of z."""
    trace, side_by_side = reader.trace, reader.layout.rows(z)
    side_by_side = side_by_side.reshape(-1, side_by_side.shape[-1])
    node = max(i for i in ancestors(trace, z, frozenset()) if trace.nodes[i].kind == "attention")
    while len(_carrying(trace, node)) == 1:  # weights, on their way to the values
        node = next(i for i in range(node + 1, z + 1) if node in trace.nodes[i].inputs)
    made = trace.tensors[node]
    if made.shape[:-2].numel() == heads and made.shape[-2] == len(side_by_side):
        return list(made.reshape(heads, *made.shape[-2:])[:, : trace.tokens])
    return list(side_by_side[: trace.tokens].unflatten(-1, (heads, -1)).unbind(1))


def _carrying(trace: Trace, node: int) -> set[int]:
    return {i for i in trace.nodes[node].inputs if trace.tensors[i].requires_grad}


def _columns(outputs: list[Tensor], projected: list[_Projected]) -> _Found:
    """For each kind that has columns of its own: which projection, and the columns of each (key-value) head.

    outputs: (tokens, width) of each head.
    """
    heads, owners = len(outputs), [each.matrix for each in projected]
    masks = [_masks_of_head(output, projected) for output in outputs]
    found: _Found = {}
    for kind in _KINDS:
        own, shared = _own([each[kind] for each in masks], owners)
        runs = [_runs(each, owners) for each in own]
        for place in range(len(projected)):
            each = [columns[place] for columns in runs if place in columns]
            ordered = tuple(dict.fromkeys(each))  # heads of one group share their keys and values
            widths = {_width(columns) for columns in ordered}
            if kind == "keys" and "queries" in found and not shared:  # they meet in a product
                widths.add(_width(found["queries"][1][0]))
            expected = len(ordered) == heads if kind == "queries" else heads % max(1, len(ordered)) == 0
            if len(each) == heads and len(widths) == 1 and expected:
                found.setdefault(kind, (place, ordered))
    return found


def _own(masks: list[list[Tensor]], owners: list[int]) -> tuple[list[list[Tensor]], bool]:
    """(columns of each head in each projection, less matrices all of whose columns act on every head; whether there
    were such). All are kept where a head would have none left."""
    shared = [torch.stack(each).all(0) for each in zip(*masks, strict=True)]
    private = {
        of for each in masks for mask, other, of in zip(each, shared, owners, strict=True) if (mask & ~other).any()
    }
    own = [[mask & (of in private) for mask, of in zip(each, owners, strict=True)] for each in masks]
    if any(not any(bool(mask.any()) for mask in each) for each in own):
        return masks, False
    return own, any(bool(mask.any()) for mask, of in zip(shared, owners, strict=True) if of not in private)


def _width(columns: Columns) -> int:
    return columns[1] - columns[0]


def _masks_of_head(output: Tensor, projected: list[_Projected]) -> dict[str, list[Tensor]]:
    """Kind → which columns of each of `projected` are of that kind. output: (tokens, width) of one head."""
    at, last = len(output) - 1, output[-1]
    weights = torch.linspace(1.0, 2.0, len(last), dtype=last.dtype, device=last.device)
    every = _acting((last * weights).sum(), projected, at)
    first, second = _acting(last[0], projected, at), _acting(last[-1], projected, at)
    masks: dict[str, list[Tensor]] = {kind: [] for kind in _KINDS}
    for (here, before), (_, one), (_, two) in zip(every, first, second, strict=True):
        masks["queries"].append(here & ~before)
        masks["keys"].append(before & one & two)
        masks["values"].append(before & ~(one & two))
    return masks


def _acting(score: Tensor, projected: list[_Projected], last: int) -> list[tuple[Tensor, Tensor]]:
    """For each projection, which columns act on the score: at the last token, and at those before it."""
    gradients = torch.autograd.grad(score, [each.tensor for each in projected], retain_graph=True, allow_unused=True)
    found = []
    for gradient, each in zip(gradients, projected, strict=True):
        acts = each.rows(torch.zeros_like(each.tensor) if gradient is None else gradient) != 0
        found.append((acts[last], acts[:last].any(0)))
    return found


def _runs(masks: list[Tensor], owners: list[int]) -> dict[int, Columns]:
    """Where the columns that are set lie side by side; nothing where they are of more than one matrix."""
    used = [i for i, mask in enumerate(masks) if bool(mask.any())]
    found = {}
    for i in used if len({owners[i] for i in used}) == 1 else []:
        columns = masks[i].nonzero()[:, 0].tolist()
        if columns[-1] + 1 - columns[0] == len(columns):
            found[i] = (columns[0], columns[-1] + 1)
    return found
