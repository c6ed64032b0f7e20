"""One layer of a trace as places: where its stream, its contributions, its heads and its neurons are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from attrib.errors import UnsupportedModel
from attrib.patching.blocklist import Span
from attrib.patching.branches import Branch, shifted_names
from attrib.patching.heads import Attending, attending
from attrib.patching.layout import Layout
from attrib.patching.nodes import Visit
from attrib.patching.passing import passed
from attrib.patching.places import Place
from attrib.patching.stream import Stream
from attrib.patching.structure import Attention, Joining, Layer, Norm, Step
from attrib.patching.trace import Trace

_Step = TypeVar("_Step", bound=Step)
_BETWEEN = "what lies between attention and MLP (resid_mid)"


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
                f"what {where} adds to the stream is not attention, at most one other mixer of positions and the MLPs "
                "behind these",
            )
            return Layer(block, pre, post)
        mid = None if stream.mid is None else self._place(stream.mid, span)
        if stream.mid is not None and mid is None:
            self.miss("resid_mid", "nothing reads or makes the stream between attention and MLP as it is")
        if stream.handed_on:
            self.miss(_BETWEEN, "attention hands what it makes to the MLP alone, so it joins no stream")
        if not stream.plain:
            self.miss("attn_out, mlp_out, neuron", "attention and MLPs make one contribution to the stream together")
        neurons = None if stream.mlp is None else self._read_by(stream.mlp)
        return Layer(
            block=block,
            pre=pre,
            post=post,
            attentions=tuple(
                Attention(self._maker(branch, span, "attn_out") if stream.plain else None)
                for branch in stream.attentions
            ),
            mixer=self._maker(stream.mixer, span, "mixer_out"),
            mlp=self._maker(stream.mlp, span, "mlp_out"),
            further=self._further(stream, span),
            mid=mid,
            neurons=neurons,
            units=0 if neurons is None or stream.mlp is None else self._width(stream.mlp.read),
            course=self._course(stream, span) if stream.plain else None,
        )

    def output(self, maker: Visit) -> Place | None:
        """Where what the call puts out is found; None where it has no row for each position."""
        return self._found(maker, "output", maker.output) if self.layout.fits(maker.output) else None

    def _found(self, visit: Visit, reads: Literal["input", "output"], node: int, shared: bool = False) -> Place | None:
        axes = self.layout.axes(node)
        if shared and axes is not None:  # those who read past it would not see what is read there
            return None
        changed, call = node in self.trace.changed, self.trace.call_of(visit)
        return Place(visit.path, reads, shared=shared, changed=changed, call=call, axes=axes)

    def _by_operation(self, node: int) -> Place | None:
        """What an operation of a module's own code makes."""
        made = self.trace.nodes[node]
        if made.operation is None or not self.layout.fits(node):
            return None
        changed, call, axes = node in self.trace.changed, self.trace.turn_of(node), self.layout.axes(node)
        return Place(made.path, "made", changed=changed, call=call, axes=axes, operation=made.operation)

    def made_by_leaf(self, node: int) -> Place | None:
        """The same of the module whose weights make the tensor."""
        maker = self._leaf(node)
        return None if maker is None else self.output(maker)

    def made(self, node: int) -> Place | None:
        """The same of any tensor that fits: of the leaf module that makes it, or of the operation that does."""
        return self.made_by_leaf(node) or self._by_operation(node)

    def attending(self, stream: Stream | None) -> list[Attending | None]:
        """The heads of each attention; None where they lie side by side nowhere."""
        if stream is None or not stream.attentions:
            return []
        found = [attending(self.trace, self.layout, branch) for branch in stream.attentions]
        if self.layout.streams > 1:
            self.miss(
                "head.*.* of the streams behind the first", "sites are of the first one's heads, q, k and v alone"
            )
        if None in found:
            self.miss("head", "nowhere are the outputs of attention's heads side by side")
        return found

    def _ends(self, span: Span) -> tuple[Place, Place]:
        ends: list[Place | None]
        if span.visit is None:
            ends = [self._place(node, span) for node in (span.start, span.end)]
        else:
            ends = [self._front(span.visit), self.output(span.visit)]
        if ends[0] is None or ends[1] is None:
            raise UnsupportedModel(f"{self.name}: no module reads or makes the hidden states between two layers")
        return ends[0], ends[1]

    def _front(self, block: Visit) -> Place | None:
        """What the block is given. Others may read it, too: a later block, or a sum of several streams."""
        place, paths = self._input(block), (block.path, f"{block.path}.")
        made = zip(self.trace.nodes, self.trace.tensors, strict=True)  # what carries nothing on has read a shape alone
        readers = [node.path for node, tensor in made if block.inputs[0] in node.inputs and tensor.requires_grad]
        inside = [path == paths[0] or path.startswith(paths[1]) for path in readers]
        if place is None or all(inside) or place.axes is not None:
            return place
        return replace(place, shared=True) if inside[0] else replace(place, own=True)

    def _course(self, stream: Stream, span: Span) -> tuple[Joining | Step, ...] | None:
        course: list[Joining | Step] = []
        for step in stream.course or ():
            joining = self._joining(stream, step, span) if isinstance(step, Branch) else self._laid(step)
            if joining is None:
                return None
            course.append(joining)
        return None if stream.course is None else tuple(course)

    def _joining(self, stream: Stream, branch: Branch, span: Span) -> Joining | None:
        """From the output projection on for attention that has one, else from what has its own site on."""
        leaf = self._leaf(branch.made) if branch.attention else None
        node, place = self._made(branch, span) if leaf is None else (leaf.output, self.output(leaf))
        by = None if place is None else passed(self.trace, node, branch.names[0])
        if place is None or by is None:
            return None
        what: Literal["mixer", "mlp"] = "mlp" if branch == stream.mlp else "mixer"
        return Joining("attention" if branch in stream.attentions else what, place, tuple(map(self._laid, by)))

    def _laid(self, step: _Step) -> _Step | Norm:
        """The step with how its tensors lie."""
        if not isinstance(step, Norm):
            return step
        visit = self.trace.visits_of(step.path)[step.call or 0]
        return replace(step, axes=self.layout.axes(visit.output))

    def _maker(self, branch: Branch | None, span: Span, kind: str) -> Place | None:
        if branch is None:
            return None
        _, place = self._made(branch, span)
        if place is None:
            self.miss(kind, "neither a module nor an operation puts out what is added to the stream")
        return place

    def _further(self, stream: Stream, span: Span) -> tuple[Place, ...]:
        if stream.further:
            self.miss("neuron.*.* of MLPs behind the first", "neuron.L holds those of one MLP, that of mlp_out.L")
        places = [self._maker(branch, span, "mlp_out.*.*") for branch in stream.further]
        return tuple(place for place in places if place is not None)

    def _made(self, branch: Branch, span: Span) -> tuple[int, Place | None]:
        """(its node, where the contribution is found): the outermost module's that puts it out, before it is multiplied
        or shifted by constants; else an operation's."""
        for names in (branch.names, shifted_names(self.trace, branch.names)):
            maker = _outermost([visit for visit in self.within(span) if visit.output in names])
            if maker is not None:
                return maker.output, self.output(maker)
        return branch.names[0], self._by_operation(branch.names[0])

    def _place(self, node: int, span: Span) -> Place | None:
        """A module that makes the tensor, or else one that is given it."""
        within, node = list(self.within(span)), self.trace.upright(node)
        # what hands on its own input (an identity) makes nothing: others read that tensor past it
        made = _outermost([visit for visit in within if visit.output == node and node not in visit.inputs])
        if made is not None:
            return self.output(made)
        given = [visit for visit in within if visit.inputs[:1] == (node,)]
        return (self._input(given[0], shared=True) if given else None) or self._by_operation(node)

    def within(self, span: Span) -> Iterator[Visit]:
        """Calls of modules inside the layer, in the order of their returns."""
        return (visit for visit in self.trace.visits if span.visit is None or visit.inside(span.visit))

    def _input(self, visit: Visit, shared: bool = False) -> Place | None:
        return self._found(visit, "input", visit.inputs[0], shared) if self.layout.fits(visit.inputs[0]) else None

    def with_heads(self, attention: Attention, attending: Attending | None) -> Attention:
        """The attention with the outputs of its heads."""
        if attending is None:
            return attention
        given = next((visit for visit in self.trace.visits if visit.inputs[:1] == (attending.z,)), None)
        place = self._by_operation(attending.z) if given is None else self._input(given)
        width = self.layout.rows(attending.z).shape[-1] // attending.count
        columns = tuple((head * width, (head + 1) * width) for head in range(attending.count))
        return attention if place is None else replace(attention, z=place, heads=columns)

    def _read_by(self, branch: Branch) -> Place | None:
        maker = self._leaf(branch.made)
        return None if maker is None else self._input(maker)

    def _width(self, node: int | None) -> int:
        return 0 if node is None else int(self.layout.rows(node).shape[-1])

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
