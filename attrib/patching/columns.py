"""Which columns of which projection are the queries, keys and values of each head, read off gradients.

With z_h the output of head h at the last token: only that token's queries act on it; keys of all tokens act on every
component of z_h; a column of the values acts on one component alone. So fused, separate, interleaved and grouped
projections need no case of their own. Where a norm goes over all heads of a projection at once, its columns act on
every head; behind that norm they are each head's own.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attrib.patching.stream import Stream, ancestors
from attrib.patching.structure import Columns, Layer, Place, Projection
from attrib.patching.trace import Trace

_KINDS = ("queries", "keys", "values")
# "queries" … → which projection of the block, and the columns of each head; without the kinds that were not found
_Found = dict[str, tuple[int, tuple[Columns, ...]]]


def with_projections(
    trace: Trace, layers: list[Layer], streams: list[Stream], heads: int, head_dim: int
) -> tuple[list[Layer], int, str | None]:
    """(layers with their projections, how many key-value heads, why there are none).

    Blocks are alike: the columns of the first block that shows them clearly hold for all.
    """
    projected = [_projections(trace, stream) for stream in streams]
    widths = {tuple((int(trace.tensors[node].shape[-1]), of) for node, of in each) for each in projected}
    if not heads or len(widths) != 1:
        return layers, heads, "blocks have different projections before attention"
    found: _Found = {}
    for each, stream in zip(projected, streams, strict=True):
        if stream.attention.read is not None and len(found) < len(_KINDS):
            z, tensors = trace.tensors[stream.attention.read], [trace.tensors[node] for node, _ in each]
            found = _columns(z, tensors, [of for _, of in each], heads, head_dim) | found
    paths = [[trace.nodes[node].path for node, _ in each] for each in projected]
    full = [_projected(layer, found, own) for layer, own in zip(layers, paths, strict=True)]
    kv_heads = next((len(found[kind][1]) for kind in ("keys", "values") if kind in found), heads)
    lacking = [kind for kind in _KINDS if kind not in found]
    return (
        full,
        kv_heads,
        f"{' and '.join(lacking)} have no columns of their own in any projection" if lacking else None,
    )


def _projected(layer: Layer, found: _Found, paths: list[str]) -> Layer:
    parts = {name: Projection(Place(paths[which], "output"), columns) for name, (which, columns) in found.items()}
    return replace(layer, **parts)  # type: ignore[arg-type]


def _projections(trace: Trace, stream: Stream) -> list[tuple[int, int]]:
    """(node, which of the matrices it belongs to) of the last weight matrices before attention, in the order they ran,
    and behind them of norms that take their output whole."""
    read = stream.attention.read
    if read is None:
        return []
    matrices = frozenset(i for i, node in enumerate(trace.nodes) if node.kind == "matrix")
    before = ancestors(trace, read, matrices)
    reached = {i for node in before for i in trace.nodes[node].inputs if i in matrices}
    nearest = sorted(i for i in reached if trace.tensors[i].requires_grad)  # not those of positions alone
    given = {node: trace.nodes[node].inputs[0] for node in sorted(before) if trace.nodes[node].kind == "pointwise"}
    norms = [(node, nearest.index(matrix)) for node, matrix in given.items() if matrix in nearest]
    return [*((node, of) for of, node in enumerate(nearest)), *norms]


def _columns(z: Tensor, projected: list[Tensor], owners: list[int], heads: int, head_dim: int) -> _Found:
    """For each kind that has columns of its own: which projection, and the columns of each (key-value) head.

    owners: to which matrix each of `projected` belongs.
    """
    by_head = [_columns_of_head(z[..., h * head_dim : (h + 1) * head_dim], projected, owners) for h in range(heads)]
    found: _Found = {}
    for kind in _KINDS:
        for place in range(len(projected)):
            each = [own[kind][place] for own in by_head if place in own.get(kind, {})]
            ordered = tuple(dict.fromkeys(each))  # heads of one group share their keys and values
            widths = {_width(columns) for columns in ordered}
            if kind == "keys" and "queries" in found:  # they meet in a product
                widths.add(_width(found["queries"][1][0]))
            expected = len(ordered) == heads if kind == "queries" else heads % max(1, len(ordered)) == 0
            if len(each) == heads and len(widths) == 1 and expected:
                found.setdefault(kind, (place, ordered))
    return found


def _width(columns: Columns) -> int:
    return columns[1] - columns[0]


def _columns_of_head(z: Tensor, projected: list[Tensor], owners: list[int]) -> dict[str, dict[int, Columns]]:
    """Kind → in which of `projected`, and its columns there. z: (1, tokens, head_dim) of one head."""
    last = z.reshape(-1, z.shape[-1])[-1]
    weights = torch.linspace(1.0, 2.0, len(last), dtype=z.dtype, device=z.device)
    every = _acting((last * weights).sum(), projected)
    first, second = _acting(last[0], projected), _acting(last[-1], projected)
    masks: dict[str, list[Tensor]] = {kind: [] for kind in _KINDS}
    for (here, before), (_, one), (_, two) in zip(every, first, second, strict=True):
        masks["queries"].append(here & ~before)
        masks["keys"].append(before & one & two)
        masks["values"].append(before & ~(one & two))
    return {kind: _runs(parts, owners) for kind, parts in masks.items()}


def _acting(score: Tensor, projected: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For each projection, which columns act on the score: at the last token, and at those before it."""
    gradients = torch.autograd.grad(score, projected, retain_graph=True, allow_unused=True)
    found = []
    for gradient, tensor in zip(gradients, projected, strict=True):
        acts = torch.zeros_like(tensor) if gradient is None else gradient
        acts = acts.reshape(-1, acts.shape[-1]) != 0
        found.append((acts[-1], acts[:-1].any(0)))
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
