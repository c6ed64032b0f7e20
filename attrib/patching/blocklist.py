"""Where a transformer's layers begin and end in a trace: which modules are blocks, and what stands behind the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from attrib.errors import UnsupportedModel
from attrib.patching.branches import ancestors, names_of
from attrib.patching.nodes import Visit
from attrib.patching.stream import regions_of, stream_of
from attrib.patching.trace import Trace


@dataclass(frozen=True)
class Span:
    """One layer: nodes of the stream at its beginning and end, and the call of its block if that is a module."""

    start: int
    end: int
    visit: Visit | None = None


def spans_of(name: str, twin: nn.Module, trace: Trace) -> list[Span]:
    """The layers in order. Raises UnsupportedModel where there are none.

    A list of blocks that run one after the other, or stretches of the stream where no module is a whole layer.
    """
    visits = blocks_of(twin, trace)
    blocks = [Span(visit.inputs[0], visit.output, visit) for visit in visits]
    if blocks and (is_chain(trace, visits) or all(stream_of(trace, span.start, span.end) for span in blocks)):
        return blocks
    read = [visit.inputs[0] for visit in leaves(twin, trace) if trace.nodes[visit.output].kind == "matrix"]
    regions = (regions_of(trace, 0, node) for node in reversed(read))  # a matrix of the head may stand before the last
    found = [Span(start, end) for start, end in next(filter(None, regions), [])]
    if not found or not all(stream_of(trace, span.start, span.end) for span in found):
        why = "has no list of blocks that run one after the other, and its stream of hidden states is more than sums, "
        why += "norms and factors"
        if _is_cut(trace):
            why = "runs its layers where no gradients are recorded, in an autograd function of its own (as reversible "
            why += "layers do), so that what they make cannot be followed"
        raise UnsupportedModel(f"{name} {why}: its layers have no sites")
    return found


def _is_cut(trace: Trace) -> bool:
    """Whether weight matrices read what is made from the prompt, but no gradients are recorded there."""
    without = (i for i, made in enumerate(trace.nodes) if made.kind == "matrix" and not trace.tensors[i].requires_grad)
    return any(0 in ancestors(trace, node, frozenset()) for node in without)


def blocks_of(twin: nn.Module, trace: Trace) -> list[Visit]:
    """The calls of the longest list of modules that run one after the other; nothing where there is none.

    Each is given what the one before has put out, or at least every one of them is there and of one type.
    """
    lists = {path: module for path, module in twin.named_modules() if isinstance(module, nn.ModuleList) and len(module)}
    calls = {path: _calls(trace, path, len(module)) for path, module in lists.items()}
    alike = [path for path, module in lists.items() if len({type(m) for m in module}) == 1]
    usable = {
        path: visits
        for path, visits in calls.items()
        if visits and (is_chain(trace, visits) or (path in alike and len({v.path for v in visits}) == len(visits)))
    }
    parts = {path for path in usable for other in usable if len(lists[other]) > 1 and path.startswith(f"{other}.")}
    found = [visits for path, visits in usable.items() if path not in parts]
    return max(found, key=lambda visits: (is_chain(trace, visits), len(visits)), default=[])


def _calls(trace: Trace, path: str, length: int) -> list[Visit]:
    inside = {f"{path}.{i}" if path else str(i) for i in range(length)}
    visits = [visit for visit in trace.visits if visit.path in inside]
    return visits if all(visit.inputs for visit in visits) else []


def is_chain(trace: Trace, visits: Sequence[Visit]) -> bool:
    """Whether each is given what the one before has put out."""
    return all(_is_view(trace, b.inputs[0], a.output) for a, b in pairwise(visits))


def reads_past_stream(trace: Trace, span: Span) -> bool:
    """Whether the layer reads anything else that was made from the prompt before it began: keys of an earlier layer,
    say, or the embeddings again."""
    stops, pending, seen = frozenset(names_of(trace, span.start)), [span.end], set[int]()
    while pending:
        node = pending.pop()
        if node in stops or node in seen or not trace.tensors[node].requires_grad:
            continue
        if node < span.start:
            return True
        seen.add(node)
        pending += trace.nodes[node].inputs
    return False


def _is_view(trace: Trace, node: int, of: int) -> bool:
    while node != of and trace.nodes[node].kind == "alias":
        node = trace.nodes[node].inputs[0]
    return node == of


def leaves(twin: nn.Module, trace: Trace) -> list[Visit]:
    """The calls of leaf modules."""
    leaf = {path for path, module in twin.named_modules() if next(module.children(), None) is None}
    return [visit for visit in trace.visits if visit.path in leaf]


def head_of(name: str, trace: Trace, behind: Sequence[Visit]) -> str:
    """The last weight matrix, which makes the logits. Raises UnsupportedModel where there is none."""
    matrices = [visit.path for visit in behind if trace.nodes[visit.output].kind == "matrix"]
    if not matrices:
        raise UnsupportedModel(f"{name} has no head behind its last block: no weight matrix makes its logits")
    return matrices[-1]
