"""Which columns of which projection are the queries, keys and values of each head, read off gradients.

With z_h the output of head h at the last token: only that token's queries act on it; keys of all tokens act on every
component of z_h; a column of the values acts on one component alone. So fused, separate, interleaved and grouped
projections need no case of their own.
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
    matrices = [_projections(trace, stream) for stream in streams]
    widths = {tuple(int(trace.tensors[node].shape[-1]) for node in nodes) for nodes in matrices}
    if not heads or len(widths) != 1:
        return layers, heads, "blocks have different projections before attention"
    found: _Found = {}
    for nodes, stream in zip(matrices, streams, strict=True):
        if stream.attention.read is not None and len(found) < len(_KINDS):
            z, projected = trace.tensors[stream.attention.read], [trace.tensors[n] for n in nodes]
            found = _columns(z, projected, heads, head_dim) | found
    paths = [[trace.nodes[n].path for n in nodes] for nodes in matrices]
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


def _projections(trace: Trace, stream: Stream) -> list[int]:
    """The last weight matrices before attention, in the order they ran."""
    read = stream.attention.read
    if read is None:
        return []
    matrices = frozenset(i for i, node in enumerate(trace.nodes) if node.kind == "matrix")
    nearest: set[int] = set()
    for node in ancestors(trace, read, matrices):
        nearest |= {i for i in trace.nodes[node].inputs if i in matrices}
    return sorted(nearest)


def _columns(z: Tensor, projected: list[Tensor], heads: int, head_dim: int) -> _Found:
    """For each kind that has columns of its own: which projection, and the columns of each (key-value) head."""
    by_head = [_columns_of_head(z[..., h * head_dim : (h + 1) * head_dim], projected) for h in range(heads)]
    found: _Found = {}
    for kind in _KINDS:
        each = [own[kind] for own in by_head if kind in own]
        ordered = list(dict.fromkeys(each))  # heads of one group share their keys and values
        widths = {stop - start for _, (start, stop) in ordered}
        alike = len(each) == heads and len(widths) == 1 and len({place for place, _ in ordered}) == 1
        expected = len(ordered) == heads if kind == "queries" else heads % max(1, len(ordered)) == 0
        if alike and expected:
            found[kind] = ordered[0][0], tuple(columns for _, columns in ordered)
    return found


def _columns_of_head(z: Tensor, projected: list[Tensor]) -> dict[str, tuple[int, Columns]]:
    """z: (1, tokens, head_dim) of one head."""
    last = z.reshape(-1, z.shape[-1])[-1]
    weights = torch.linspace(1.0, 2.0, len(last), dtype=z.dtype, device=z.device)
    every = _acting((last * weights).sum(), projected)
    first, second = _acting(last[0], projected), _acting(last[-1], projected)
    masks: dict[str, list[Tensor]] = {kind: [] for kind in _KINDS}
    for (here, before), (_, one), (_, two) in zip(every, first, second, strict=True):
        masks["queries"].append(here & ~before)
        masks["keys"].append(before & one & two)
        masks["values"].append(before & ~(one & two))
    runs = {kind: _one_run(parts) for kind, parts in masks.items()}
    return {kind: run for kind, run in runs.items() if run is not None}


def _acting(score: Tensor, projected: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For each projection, which columns act on the score: at the last token, and at those before it."""
    gradients = torch.autograd.grad(score, projected, retain_graph=True, allow_unused=True)
    found = []
    for gradient, tensor in zip(gradients, projected, strict=True):
        acts = torch.zeros_like(tensor) if gradient is None else gradient
        acts = acts.reshape(-1, acts.shape[-1]) != 0
        found.append((acts[-1], acts[:-1].any(0)))
    return found


def _one_run(masks: list[Tensor]) -> tuple[int, Columns] | None:
    """The one projection with any column set, and these columns where they lie side by side."""
    used = [i for i, mask in enumerate(masks) if bool(mask.any())]
    if len(used) != 1:
        return None
    set_columns = masks[used[0]].nonzero()[:, 0].tolist()
    start, stop = set_columns[0], set_columns[-1] + 1
    return (used[0], (start, stop)) if stop - start == len(set_columns) else None
