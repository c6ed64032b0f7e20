"""One layer of a trace as places: where its stream, its contributions, its heads and its neurons are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from attrib.errors import UnsupportedModel
from attrib.patching.blocklist import Span
from attrib.patching.branches import Branch
from attrib.patching.columns import heads_apart
from attrib.patching.layout import Layout
from attrib.patching.stream import Stream, passed
from attrib.patching.structure import Joining, Layer, Passing, Place
from attrib.patching.trace import Trace, Visit

_NO_NEURONS = (
    "no single weight matrix that reads a row for each position makes the contribution (experts read the rows of the "
    "tokens that are sent to them alone)"
)


class Reader:
    """Reads layers of one trace. ends: nodes of the stream before the first layer and behind the last."""

    def __init__(self, name: str, trace: Trace, ends: tuple[int, int]) -> None:
        self.name, self.trace = name, trace
        self._missing: dict[str, str] = {}
        self.layout = Layout(name, trace, ends)

    def layer(self, span: Span, stream: Stream | None) -> Layer:
        """The layer without its projections."""
        pre, post = self._ends(span)
        block = None if span.visit is None or self.trace.call_of(span.visit) is not None else span.visit.path
        if stream is None:
            where = "a layer" if block is None else repr(block)
            self.miss(
                "attn_out, mlp_out, head, neuron",
                f"what {where} adds to the stream is not at most one attention, one other mixer of positions and one "
                "MLP",
            )
            return Layer(block, pre, post)
        mid = None if stream.mid is None else self._place(stream.mid, span)
        if stream.mid is not None and mid is None:
            self.miss("resid_mid", "no module reads or makes the stream between attention and MLP")
        if not stream.plain:
            self.miss("attn_out, mlp_out, neuron", "attention and MLPs make one contribution to the stream together")
        return Layer(
            block=block,
            pre=pre,
            post=post,
            attention=self._maker(stream.attention, span, "attn_out") if stream.plain else None,
            mixer=self._maker(stream.mixer, span, "mixer_out"),
            mlp=self._maker(stream.mlp, span, "mlp_out"),
            mid=mid,
            z=self._heads(stream),
            neurons=None if stream.mlp is None else self._read_by(stream.mlp, "neuron"),
            course=self._course(stream, span) if stream.plain else None,
        )

    def output(self, maker: Visit) -> Place | None:
        """Where what the call puts out is found; None where it has no row for each position."""
        return self._found(maker, "output", maker.output) if self.layout.fits(maker.output) else None

    def _found(self, visit: Visit, reads: Literal["input", "output"], node: int, shared: bool = False) -> Place | None:
        swapped = self.layout.swapped(node)
        if shared and swapped is not None:  # those who read past it would not see what is read there
            return None
        changed, call = node in self.trace.changed, self.trace.call_of(visit)
        return Place(visit.path, reads, shared=shared, changed=changed, call=call, swapped=swapped)

    def made_by_leaf(self, node: int) -> Place | None:
        """The same of the module whose weights make the tensor."""
        maker = self._leaf(node)
        return None if maker is None else self.output(maker)

    def z_of(self, stream: Stream | None) -> int | None:
        """The tensor that holds the outputs of attention's heads side by side, in front of the output projection."""
        attention = None if stream is None else stream.attention
        if stream is None or attention is None or not attention.behind:
            return None
        node = self.trace.nodes[attention.behind[0]].inputs[0]
        while not (self.layout.fits(node) and heads_apart(self.trace, self.layout.rows(node), attention.attention)):
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
            joining = self._joining(stream, step, span) if isinstance(step, Branch) else step
            if joining is None:
                return None
            course.append(joining)
        return None if stream.course is None else tuple(course)

    def _joining(self, stream: Stream, branch: Branch, span: Span) -> Joining | None:
        """From the output projection on for attention that has one, else from what has its own site on."""
        maker = (self._leaf(branch.made) if branch.attention else None) or self._made_by(branch, span)
        place = None if maker is None else self.output(maker)
        by = None if maker is None else passed(self.trace, maker.output, branch.names[0])
        if place is None or by is None or place.swapped is not None:
            return None
        what: Literal["mixer", "mlp"] = "mlp" if branch == stream.mlp else "mixer"
        return Joining("attention" if branch == stream.attention else what, place, by)

    def _maker(self, branch: Branch | None, span: Span, kind: str) -> Place | None:
        maker = None if branch is None else self._made_by(branch, span)
        place = None if maker is None else self.output(maker)
        if place is None and branch is not None:
            self.miss(kind, "no module puts out what is added to the stream")
        return place

    def _made_by(self, branch: Branch, span: Span) -> Visit | None:
        """The outermost module whose output is the contribution."""
        return _outermost([visit for visit in self._within(span) if visit.output in branch.names])

    def _place(self, node: int, span: Span) -> Place | None:
        """A module that makes the tensor, or else one that is given it."""
        within, node = list(self._within(span)), self.trace.upright(node)
        # what hands on its own input (an identity) makes nothing: others read that tensor past it
        made = _outermost([visit for visit in within if visit.output == node and node not in visit.inputs])
        if made is not None:
            return self.output(made)
        given = [visit for visit in within if visit.inputs[:1] == (node,)]
        return self._input(given[0], shared=True) if given else None

    def _within(self, span: Span) -> Iterator[Visit]:
        return (visit for visit in self.trace.visits if span.visit is None or visit.inside(span.visit))

    def _input(self, visit: Visit, shared: bool = False) -> Place | None:
        return self._found(visit, "input", visit.inputs[0], shared) if self.layout.fits(visit.inputs[0]) else None

    def _heads(self, stream: Stream) -> Place | None:
        if stream.attention is None:
            return None
        z = self.z_of(stream)
        if z is None:
            self.miss("head", "no weight matrix reads the outputs of attention's heads side by side")
            return None
        return self._input(next(visit for visit in self.trace.visits if visit.inputs[:1] == (z,)))

    def _read_by(self, branch: Branch, kind: str) -> Place | None:
        maker = self._leaf(branch.made)
        place = None if maker is None else self._input(maker)
        if place is None:
            self.miss(kind, _NO_NEURONS)
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


def _outermost(visits: Sequence[Visit]) -> Visit | None:
    return min(visits, key=lambda visit: visit.path.count("."), default=None)
