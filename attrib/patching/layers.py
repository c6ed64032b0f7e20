"""One layer of a trace as places: where its stream, its contributions, its heads and its neurons are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from attrib.errors import UnsupportedModel
from attrib.patching.blocklist import Span
from attrib.patching.columns import heads_apart
from attrib.patching.stream import Branch, Stream, passed
from attrib.patching.structure import Joining, Layer, Passing, Place
from attrib.patching.trace import Trace, Visit


class Reader:
    """Reads layers of one trace. tokens: how many were given. stream: a node of the stream."""

    def __init__(self, name: str, trace: Trace, tokens: int, stream: int) -> None:
        self.name, self.trace = name, trace
        self._missing: dict[str, str] = {}
        self.leading = tuple(trace.tensors[stream].shape[:-1])
        if self.leading not in ((1, tokens), (tokens,), (tokens, 1)):
            raise UnsupportedModel(
                f"{name} keeps its hidden states as {tuple(trace.tensors[stream].shape)} when it is given {tokens} "
                "tokens, so that positions cannot be told: its layers have no sites"
            )
        self._tokens = tokens

    def layer(self, span: Span, stream: Stream | None) -> Layer:
        """The layer without its projections."""
        pre, post = self._ends(span)
        block = None if span.visit is None or self.trace.call_of(span.visit) is not None else span.visit.path
        if stream is None:
            where = "a layer" if block is None else repr(block)
            self.miss(
                "attn_out, mlp_out, head, neuron",
                f"what {where} adds to the stream is not one attention or mixer of positions and at most one MLP",
            )
            return Layer(block, pre, post)
        mixer, mlp = (self._maker(branch, span) for branch in (stream.mixer, stream.mlp))
        mid = None if stream.mid is None else self._place(stream.mid, span)
        if stream.mid is not None and mid is None:
            self.miss("resid_mid", "no module reads or makes the stream between attention and MLP")
        if mixer is None:
            self.miss("attn_out" if stream.heads else "mixer_out", "no module puts out what is added to the stream")
        return Layer(
            block=block,
            pre=pre,
            post=post,
            attention=mixer if stream.heads else None,
            mixer=None if stream.heads else mixer,
            mlp=mlp,
            mid=mid,
            z=self._heads(stream),
            neurons=None if stream.mlp is None else self._read_by(stream.mlp, "neuron"),
            course=self._course(stream, span),
        )

    def fits(self, node: int) -> bool:
        """Whether the tensor has a row for each position, as the stream has, or behind all that could be the batch."""
        leading = tuple(self.trace.tensors[node].shape[:-1])
        return leading == self.leading or (leading[-1:] == (self._tokens,) and math.prod(leading) == self._tokens)

    def output(self, maker: Visit) -> Place | None:
        """Where what the call puts out is found; None where it has no row for each position."""
        if not self.fits(maker.output):
            return None
        changed = maker.output in self.trace.changed
        return Place(maker.path, "output", changed=changed, call=self.trace.call_of(maker))

    def made_by_leaf(self, node: int) -> Place | None:
        """The same of the module whose weights make the tensor."""
        maker = self._leaf(node)
        return None if maker is None else self.output(maker)

    def z_of(self, stream: Stream | None) -> int | None:
        """The tensor that holds the outputs of attention's heads side by side, in front of the output projection."""
        attention = None if stream is None else stream.attention
        if stream is None or attention is None or attention.read is None:
            return None
        node = attention.read
        while not heads_apart(self.trace, node, attention.attention, stream.heads):
            if self.trace.nodes[node].kind != "pointwise":
                return None
            node = self.trace.nodes[node].inputs[0]  # a norm over all heads (BitNet)
        return node

    def _ends(self, span: Span) -> tuple[Place, Place]:
        ends: list[Place | None]
        if span.visit is None:
            ends = [self._place(node, span) for node in (span.start, span.end)]
        else:
            ends = [self._input(span.visit), self.output(span.visit)]
        if ends[0] is None or ends[1] is None:
            raise UnsupportedModel(f"{self.name}: no module reads or makes the hidden states between two layers")
        return ends[0], ends[1]

    def _course(self, stream: Stream, span: Span) -> tuple[Joining | Passing, ...] | None:
        course: list[Joining | Passing] = []
        for step in stream.course or ():
            joining = self._joining(step, span) if isinstance(step, Branch) else step
            if joining is None:
                return None
            course.append(joining)
        return None if stream.course is None else tuple(course)

    def _joining(self, branch: Branch, span: Span) -> Joining | None:
        """From the output projection on for attention, from what has its own site on for the MLP."""
        maker = self._leaf(branch.made) if branch.attention else self._made_by(branch, span)
        place = None if maker is None else self.output(maker)
        by = None if maker is None else passed(self.trace, maker.output, branch.names[0])
        if place is None or by is None or (branch.mixes and not branch.attention):
            return None
        return Joining("attention" if branch.attention else "mlp", place, by)

    def _maker(self, branch: Branch | None, span: Span) -> Place | None:
        maker = None if branch is None else self._made_by(branch, span)
        return None if maker is None else self.output(maker)

    def _made_by(self, branch: Branch, span: Span) -> Visit | None:
        """The outermost module whose output is the contribution."""
        return _outermost([visit for visit in self._within(span) if visit.output in branch.names])

    def _place(self, node: int, span: Span) -> Place | None:
        """A module that makes the tensor, or else one that is given it."""
        within = list(self._within(span))
        # what hands on its own input (an identity) makes nothing: others read that tensor past it
        made = _outermost([visit for visit in within if visit.output == node and node not in visit.inputs])
        if made is not None:
            return self.output(made)
        given = [visit for visit in within if visit.inputs[:1] == (node,)]
        return self._input(given[0], shared=True) if given else None

    def _within(self, span: Span) -> Iterator[Visit]:
        return (visit for visit in self.trace.visits if span.visit is None or visit.inside(span.visit))

    def _input(self, visit: Visit, shared: bool = False) -> Place | None:
        if not self.fits(visit.inputs[0]):
            return None
        changed = visit.inputs[0] in self.trace.changed
        return Place(visit.path, "input", shared=shared, changed=changed, call=self.trace.call_of(visit))

    def _heads(self, stream: Stream) -> Place | None:
        if stream.attention is None:
            return None
        z = self.z_of(stream)
        if z is None:
            self.miss("head", "no weight matrix reads the outputs of attention's heads side by side")
            return None
        if z == stream.attention.read:
            return self._read_by(stream.attention, "head")
        return self._input(next(visit for visit in self.trace.visits if visit.inputs[:1] == (z,)))

    def _read_by(self, branch: Branch, kind: str) -> Place | None:
        maker = self._leaf(branch.made)
        place = None if maker is None else self._input(maker)
        if place is None:
            self.miss(kind, "no single weight matrix, which reads a row for each position, makes the contribution")
        return place

    def _leaf(self, node: int | None) -> Visit | None:
        if node is None:
            return None
        path = self.trace.nodes[node].path
        return next((visit for visit in self.trace.visits if visit.path == path and visit.output == node), None)

    def miss(self, what: str, why: str) -> None:
        """Note why something was not found, the first time."""
        self._missing.setdefault(what, why)

    @property
    def missing(self) -> tuple[str, ...]:
        """What was not found, and why."""
        return tuple(f"{what}: {why}" for what, why in self._missing.items())


def common_width(trace: Trace, nodes: Sequence[int]) -> int:
    """The width that all of these tensors have; 0 where they have none in common."""
    widths = {int(trace.tensors[node].shape[-1]) for node in nodes}
    return next(iter(widths)) if len(widths) == 1 else 0


def _outermost(visits: Sequence[Visit]) -> Visit | None:
    return min(visits, key=lambda visit: visit.path.count("."), default=None)
