"""A transformer's structure, found by watching one forward: no model family is known by name.

A block adds to the residual stream what its attention and its MLP put out. Walking back from a block's output through
its sums to its input gives those contributions, whatever the modules are called, one after the other or in parallel,
with norms before or after. The projections are the last weight matrices before attention, and the columns of each head
are read off the gradient of that head's output.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.failures import named_failures
from attrib.patching.blocklist import Span, head_of, leaves, reads_past_stream, spans_of
from attrib.patching.inner import layer_stream
from attrib.patching.layers import Reader
from attrib.patching.mixtures import with_experts
from attrib.patching.places import width_of
from attrib.patching.projections import with_projections
from attrib.patching.sites import all_sites
from attrib.patching.stream import Stream
from attrib.patching.structure import Layer, Structure
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
        return _structure(model.name, twin, trace, _path_of(model), lambda: model.forward(twin, x.clone(), {}))


def _probe_input(model: TextModel) -> Tensor:
    """Embeddings of a few different tokens, (1, tokens, width)."""
    table: Tensor = model.embeddings.weight  # type: ignore[assignment]
    tokens = torch.linspace(len(table) // 7, len(table) - 1, _PROBE_TOKENS, device=table.device).long()
    with torch.no_grad():
        return model.embeddings(tokens[None]).detach().clone()  # type: ignore[no-any-return]


def _path_of(model: TextModel) -> str:
    paths = (path for path, module in model.module.named_modules() if module is model.embeddings)
    return str(next(paths))


def _structure(name: str, twin: nn.Module, trace: Trace, embedding: str, run: Callable[[], Any]) -> Structure:
    spans = spans_of(name, twin, trace)
    streams = [layer_stream(trace, span.start, span.end) for span in spans]
    reader = Reader(name, trace, (spans[0].start, spans[-1].end))
    layers = [reader.layer(span, stream) for span, stream in zip(spans, streams, strict=True)]
    layers = with_experts(reader, twin, run, spans, streams, layers)
    layers, kv_heads, split = _with_attentions(reader, streams, layers)
    heads, head_dim = _common_heads(layers)
    if not any(stream is None or stream.attentions for stream in streams):
        fixed = any(stream and stream.fixed for stream in streams)
        more = " that acts: what else is added to the stream is the same for every prompt" if fixed else ""
        reader.miss("attn_out, head, head.*.*.q, k, v", f"no layer has attention{more}")
    visits = [span.visit for span in spans if span.visit is not None]
    behind = [v for v in leaves(twin, trace) if not visits or v.span[0] > visits[-1].span[1]]
    head = Span(spans[-1].end, trace.node_of(trace.output))
    return Structure(
        model=name,
        embedding=embedding,
        layers=tuple(layers),
        width=int(trace.rows(spans[0].start).shape[-1]),
        heads=heads,
        kv_heads=kv_heads or heads if heads else 0,
        head_dim=head_dim,
        parallel=all(s and s.mlp and (s.attentions or s.mixer) and s.mid is None and not s.handed_on for s in streams),
        head=head_of(name, trace, behind),
        chained=all(before.end == after.start for before, after in pairwise(spans)),
        missing=reader.missing,
        split=split and heads > 0,
        past=tuple(i for i, span in enumerate([*spans[1:], head], 1) if reads_past_stream(trace, span)),
    )


def _with_attentions(
    reader: Reader, streams: Sequence[Stream | None], layers: Sequence[Layer]
) -> tuple[list[Layer], int, bool]:
    """The layers with the heads of their attentions and what these are made of; see `with_projections`."""
    attending = [each for stream in streams for each in reader.attending(stream)]
    known = [attention for layer in layers for attention in layer.attentions]
    known = [reader.with_heads(attention, own) for attention, own in zip(known, attending, strict=True)]
    full, kv_heads, split = with_projections(reader, known, attending)
    rest = iter(full)
    own = [replace(layer, attentions=tuple(islice(rest, len(layer.attentions)))) for layer in layers]
    return own, kv_heads, split


def _common_heads(layers: Sequence[Layer]) -> tuple[int, int]:
    """(how many heads every attention has, how wide each is); 0 where that is not the same everywhere."""
    attentions = (attention for layer in layers for attention in layer.attentions)
    found = {(len(each.heads), width_of(each.heads[0])) for each in attentions if each.heads}
    return next(iter(found)) if len(found) == 1 else (0, 0)
