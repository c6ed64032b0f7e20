"""A transformer's structure, found by watching one forward: no model family is known by name.

A block adds to the residual stream what its attention and its MLP put out. Walking back from a block's output through
its sums to its input gives those contributions, whatever the modules are called, one after the other or in parallel,
with norms before or after. The projections are the last weight matrices before attention, and the columns of each head
are read off the gradient of that head's output.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.failures import named_failures
from attrib.patching.blocklist import blocks_of, final_norm_of, head_of, leaves_behind
from attrib.patching.columns import with_projections
from attrib.patching.stream import Branch, Stream, passed, stream_of
from attrib.patching.structure import Joining, Layer, Passing, Place, Structure
from attrib.patching.trace import Trace, Visit
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


def _probed(model: TextModel) -> Structure:
    twin = shadow(model.module)
    x = _probe_input(model)
    with named_failures(model.name, twin, x), torch.enable_grad():
        trace = Trace(twin).run(x.requires_grad_().clone(), lambda twin, x: model.forward(twin, x, {}))
    return _Reading(model.name, twin, trace).structure(_path_of(model))


def _probe_input(model: TextModel) -> Tensor:
    """Embeddings of a few different tokens, (1, tokens, width)."""
    table: Tensor = model.embeddings.weight  # type: ignore[assignment]
    tokens = torch.linspace(len(table) // 7, len(table) - 1, _PROBE_TOKENS, device=table.device).long()
    with torch.no_grad():
        return model.embeddings(tokens[None]).detach().clone()  # type: ignore[no-any-return]


def _path_of(model: TextModel) -> str:
    paths = (path for path, module in model.module.named_modules() if module is model.embeddings)
    return str(next(paths))


class _Reading:
    """One trace, read."""

    def __init__(self, name: str, twin: nn.Module, trace: Trace) -> None:
        self.name, self.twin, self.trace = name, twin, trace
        self.missing: dict[str, None] = {}

    def structure(self, embedding: str) -> Structure:
        blocks = blocks_of(self.name, self.twin, self.trace)
        streams = [self._stream(visit) for visit in blocks]
        layers = [self._layer(visit, stream) for visit, stream in zip(blocks, streams, strict=True)]
        heads, head_dim = self._heads(streams)
        layers, kv_heads, why = with_projections(self.trace, layers, streams, heads, head_dim)
        if why is not None:
            self.missing[f"head.*.*.q, k, v: {why}"] = None
        behind, made = leaves_behind(self.twin, self.trace, blocks[-1]), self.trace.tensors[blocks[0].output]
        return Structure(
            model=self.name,
            embedding=embedding,
            layers=tuple(layers),
            width=int(made.shape[-1]),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            neurons=self._width([s.mlp.read if s.mlp else None for s in streams]),
            parallel=all(stream.mid is None for stream in streams),
            final_norm=final_norm_of(self.twin, self.trace, blocks[-1], behind),
            head=head_of(self.name, self.trace, behind),
            tokens_first=made.dim() == 3 and len(made) > 1,
            missing=tuple(self.missing),
        )

    def _stream(self, visit: Visit) -> Stream:
        stream = stream_of(self.trace, visit)
        if stream is None:
            raise UnsupportedModel(
                f"{self.name}: the output of block {visit.path!r} is not its input with one attention and at most one "
                "MLP added, so attention and MLP have no sites of their own"
            )
        return stream

    def _layer(self, visit: Visit, stream: Stream) -> Layer:
        contributions = [self._maker(branch, visit.path) for branch in (stream.attention, stream.mlp)]
        if contributions[0] is None:
            raise UnsupportedModel(f"{self.name}: no module of block {visit.path!r} puts out what attention adds")
        mid = None if stream.mid is None else self._place(stream.mid, visit.path)
        if stream.mid is not None and mid is None:
            self.missing["resid_mid: no module reads or makes the stream between attention and MLP"] = None
        return Layer(
            block=visit.path,
            pre=Place(visit.path, "input", changed=visit.inputs[0] in self.trace.changed),
            post=Place(visit.path, "output", changed=visit.output in self.trace.changed),
            attention=contributions[0],
            mlp=contributions[1],
            mid=mid,
            z=self._read_by(stream.attention, "head"),
            neurons=self._read_by(stream.mlp, "neuron"),
            course=self._course(stream, visit.path),
        )

    def _course(self, stream: Stream, block: str) -> tuple[Joining | Passing, ...] | None:
        course: list[Joining | Passing] = []
        for step in stream.course or ():
            joining = self._joining(step, block) if isinstance(step, Branch) else step
            if joining is None:
                return None
            course.append(joining)
        return None if stream.course is None else tuple(course)

    def _joining(self, branch: Branch, block: str) -> Joining | None:
        """From the output projection on for attention, from what has its own site on for the MLP."""
        if branch.attention:
            start, place = branch.made, None if branch.matrix is None else Place(branch.matrix, "output")
        else:
            maker = self._made_by(branch, block)
            start, place = (None, None) if maker is None else (maker.output, self._output(maker))
        if start is None or place is None:
            return None
        by = passed(self.trace, start, branch.names[0])
        return None if by is None else Joining("attention" if branch.attention else "mlp", place, by)

    def _maker(self, branch: Branch | None, block: str) -> Place | None:
        maker = None if branch is None else self._made_by(branch, block)
        return None if maker is None else self._output(maker)

    def _made_by(self, branch: Branch, block: str) -> Visit | None:
        """The outermost module whose output is the contribution."""
        makers = [v for v in self.trace.visits if v.output in branch.names and v.path.startswith(f"{block}.")]
        return _outermost(makers) if makers else None

    def _place(self, node: int, block: str) -> Place | None:
        """A module that makes the tensor, or else one that is given it."""
        inside = [v for v in self.trace.visits if v.path.startswith(f"{block}.")]
        # what hands on its own input (an identity) makes nothing: others read that tensor past it
        made = [v for v in inside if v.output == node and node not in v.inputs]
        if made:
            return self._output(_outermost(made))
        given = [v for v in inside if v.inputs[:1] == (node,)]
        return Place(given[0].path, "input", shared=True, changed=node in self.trace.changed) if given else None

    def _output(self, maker: Visit) -> Place:
        return Place(maker.path, "output", changed=maker.output in self.trace.changed)

    def _read_by(self, branch: Branch | None, kind: str) -> Place | None:
        if branch is None:
            return None
        if branch.matrix is None or branch.read is None:
            self.missing[f"{kind}: no single weight matrix makes the contribution"] = None
            return None
        return Place(branch.matrix, "input", changed=branch.read in self.trace.changed)

    def _heads(self, streams: list[Stream]) -> tuple[int, int]:
        counts = {stream.heads for stream in streams}
        width = self._width([stream.attention.read for stream in streams])
        if len(counts) != 1 or not width or width % next(iter(counts)):
            self.missing["head: layers have different numbers of heads"] = None
            return 0, 0
        heads = next(iter(counts))
        return heads, width // heads

    def _width(self, nodes: list[int | None]) -> int:
        """The common width of these tensors; 0 where they have none."""
        widths = {0 if node is None else int(self.trace.tensors[node].shape[-1]) for node in nodes}
        return next(iter(widths)) if len(widths) == 1 else 0


def _outermost(visits: list[Visit]) -> Visit:
    return min(visits, key=lambda visit: visit.path.count("."))
