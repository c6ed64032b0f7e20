"""The stream of one layer, also where attention and MLP are not added to it themselves but to one inside.

A bottleneck has a narrower stream between two matrices (MobileBERT). Or only a mixer adds to the stream, and reads it
with something joined that goes no further: what an MLP makes of attention's output (Zamba).
"""

from __future__ import annotations

from dataclasses import replace

from attrib.patching.branches import Branch, ancestors, branch_of, names_of
from attrib.patching.stream import Stream, stream_of
from attrib.patching.trace import Trace


def layer_stream(trace: Trace, start: int, end: int) -> Stream | None:
    """None where more is added than attentions, one mixer and MLPs. A stream inside has no course of edges."""
    stream = stream_of(trace, start, end, stacked=True)
    if stream is None or stream.plain or len(stream.attentions) != 1 or stream.attentions[0].read is None:
        return stream
    found = _bottleneck(trace, start, stream.attentions[0].read) or _joined(trace, start, stream)
    return stream if found is None else replace(found, course=None)


def _bottleneck(trace: Trace, start: int, end: int) -> Stream | None:
    """The narrower stream between a matrix that reads the layer's and another that is added to it."""
    matrices = [node for node, made in enumerate(trace.nodes) if made.kind == "matrix"]
    reading = (node for node in matrices if start in names_of(trace, trace.nodes[node].inputs[0]))
    inner = (stream_of(trace, node, end, True, start) for node in reading)
    return next((each for each in inner if each is not None and each.plain and each.attentions), None)


def _joined(trace: Trace, start: int, stream: Stream) -> Stream | None:
    """The stream up to the first sum that attention has joined, and the mixer that hears of attention by it alone."""
    whole = stream.attentions[0]
    before = ancestors(trace, whole.names[0], frozenset(names_of(trace, start)))
    for node in sorted(n for n in before if trace.nodes[n].kind == "sum"):
        inner = stream_of(trace, start, node)
        if inner is None or len(inner.attentions) != 1 or inner.mixer is not None or inner.mlp is not None:
            continue
        mixer, parts = branch_of(trace, whole.names[0], frozenset({node})), _handed_on(trace, inner.attentions[0])
        past = set(whole.attention) & set(ancestors(trace, whole.names[0], frozenset({node})))
        alone = mixer.mixes and not past
        return replace(inner, attentions=parts[:1], mixer=mixer, mlp=parts[1], plain=True) if parts and alone else None
    return None


def _handed_on(trace: Trace, branch: Branch) -> tuple[Branch, Branch] | None:
    """(attention, the MLP that all of its output goes to, and no other part of the contribution)."""
    made = next(iter(branch.behind), None)
    if made is None or set(branch.attention) & set(ancestors(trace, branch.names[0], frozenset({made}))):
        return None
    node = trace.nodes[made]
    attention = replace(
        branch, names=names_of(trace, made), matrix=node.path, made=made, read=node.inputs[0], behind=(made,)
    )
    mlp = branch_of(trace, branch.names[0], frozenset({made}))
    last = mlp.made
    while last is not None and trace.nodes[last].kind == "matrix":  # matrices in a row have one's neurons
        mlp = replace(mlp, matrix=trace.nodes[last].path, made=last, read=trace.nodes[last].inputs[0])
        last = trace.nodes[last].inputs[0]
    inside = () if mlp.read is None or mlp.mixes else ancestors(trace, mlp.read, frozenset({made}))
    return (attention, mlp) if any(trace.nodes[n].kind == "matrix" for n in inside) else None
