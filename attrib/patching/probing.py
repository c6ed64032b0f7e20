"""A transformer's structure, found by watching one forward: no model family is known by name.

A block adds to the residual stream what its attention and its MLP put out. Walking back from a block's output through
its sums to its input gives those contributions, whatever the modules are called, one after the other or in parallel,
with norms before or after. The projections are the last weight matrices before attention, and the columns of each head
are read off the gradient of that head's output.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.failures import named_failures
from attrib.patching.blocklist import final_norm_of, head_of, leaves, spans_of
from attrib.patching.columns import with_projections
from attrib.patching.layers import Reader
from attrib.patching.sites import all_sites
from attrib.patching.stream import Stream, stream_of
from attrib.patching.structure import Structure
from attrib.patching.trace import Trace
from attrib.rules.shadow import shadow

if TYPE_CHECKING:
    from attrib.models.text import TextModel

_PROBE_TOKENS = 5

_known: weakref.WeakKeyDictionary[nn.Module, tuple[int, Structure]] = weakref.WeakKeyDictionary()


def structure_of(model: TextModel) -> Structure:
    """The structure of a wrapped transformer, remembered until its modules are others.

    Raises UnsupportedModel, which says what was not found.
    """
    if model.kind != "text":
        raise UnsupportedModel(f"{model.name} is no transformer of texts, so it has no sites to patch")
    parts = hash(tuple((path, type(module)) for path, module in model.module.named_modules()))
    known = _known.get(model.module)
    if known is None or known[0] != parts:
        known = _known[model.module] = (parts, _probed(model))
    return known[1]


def site_kinds(model: TextModel) -> tuple[str, ...]:
    """The kinds of sites that a model has, in the order it computes them. Raises UnsupportedModel."""
    return tuple(dict.fromkeys(site.kind for site in all_sites(structure_of(model))))


def _probed(model: TextModel) -> Structure:
    twin = shadow(model.module)
    x = _probe_input(model)
    with named_failures(model.name, twin, x), torch.enable_grad():
        trace = Trace(twin).run(x.requires_grad_().clone(), lambda twin, x: model.forward(twin, x, {}))
    with torch.enable_grad():
        return _structure(model.name, twin, trace, _path_of(model))


def _probe_input(model: TextModel) -> Tensor:
    """Embeddings of a few different tokens, (1, tokens, width)."""
    table: Tensor = model.embeddings.weight  # type: ignore[assignment]
    tokens = torch.linspace(len(table) // 7, len(table) - 1, _PROBE_TOKENS, device=table.device).long()
    with torch.no_grad():
        return model.embeddings(tokens[None]).detach().clone()  # type: ignore[no-any-return]


def _path_of(model: TextModel) -> str:
    paths = (path for path, module in model.module.named_modules() if module is model.embeddings)
    return str(next(paths))


def _structure(name: str, twin: nn.Module, trace: Trace, embedding: str) -> Structure:
    spans = spans_of(name, twin, trace)
    streams = [stream_of(trace, span.start, span.end) for span in spans]
    reader = Reader(name, trace, (spans[0].start, spans[-1].end))
    layers = [reader.layer(span, stream) for span, stream in zip(spans, streams, strict=True)]
    zs = [reader.z_of(stream) for stream in streams]
    heads, width = _heads(streams, zs, reader)
    layers, kv_heads, split = with_projections(reader, layers, zs, heads)
    if not any(stream is None or stream.attention for stream in streams):
        reader.miss("attn_out, head, head.*.*.q, k, v", "no layer has attention")
    visits = [span.visit for span in spans if span.visit is not None]
    behind = [v for v in leaves(twin, trace) if not visits or v.span[0] > visits[-1].span[1]]
    return Structure(
        model=name,
        embedding=embedding,
        layers=tuple(layers),
        width=int(trace.rows(spans[0].start).shape[-1]),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width // max(1, heads),
        neurons=reader.layout.common_width([s.mlp.read for s in streams if s and s.mlp and s.mlp.read is not None]),
        parallel=all(s and s.mlp and (s.attention or s.mixer) and s.mid is None for s in streams),
        final_norm=final_norm_of(twin, trace, spans[-1].end, behind),
        head=head_of(name, trace, behind),
        tokens_first=reader.layout.leading == (_PROBE_TOKENS, 1),
        chained=all(before.end == after.start for before, after in pairwise(spans)),
        missing=reader.missing,
        split=split,
    )


def _heads(streams: Sequence[Stream | None], zs: Sequence[int | None], reader: Reader) -> tuple[int, int]:
    """(how many heads every attention has, how wide they are together); 0 where that is not the same everywhere."""
    counts = {stream.heads for stream, z in zip(streams, zs, strict=True) if stream is not None and z is not None}
    width = reader.layout.common_width([z for z in zs if z is not None])
    if len(counts) == 1 and width % next(iter(counts)) == 0 and width:
        return next(iter(counts)), width
    if counts:
        reader.miss("head", "layers have different numbers of heads")
    return 0, 0
