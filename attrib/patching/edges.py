"""Edges: which component's output another component's input reads from the residual stream.

Senders are `embed` (the stream in front of the first block), each head `head.L.H` through the output projection, and
each `mlp_out.L`. Receivers are the queries, keys and values of each head (`head.L.H.q`; keys and values by key-value
head), each MLP's input `mlp_in.L`, and the stream behind the last block, `logits`. A receiver's input is made of all
senders before it and of constants by sums, and by the norms that stand behind components or on the stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.patching.course import Course, courses, reproduces
from attrib.patching.sites import PatchSite, select
from attrib.patching.structure import Joining, Place, Structure
from attrib.rules.shadow import shadow


@dataclass(frozen=True)
class Receiver:
    """One input. stream: where it reads, and what the stream is made of there, from the first senders on.

    site: its columns of a projection; None for an MLP and the logits.
    """

    name: str
    layer: int
    stream: Place
    course: Course
    site: PatchSite | None = None

    @property
    def senders(self) -> int:
        """How many of the graph's senders come before it: the first ones."""
        return max(stretch.senders[1] for stretch in self.course)


@dataclass(frozen=True, eq=False)
class EdgeGraph:
    """All edges of a model.

    senders: names in the order they are computed. heads, mlps: by layer, where its heads begin among the senders, and
    its MLP, None without one. exists: (sender, receiver) bool. read_by: (receiver, sender) bool: the sender is made
    from that input.
    """

    structure: Structure
    senders: tuple[str, ...]
    heads: tuple[int, ...]
    mlps: tuple[int | None, ...]
    receivers: tuple[Receiver, ...]
    exists: Tensor
    read_by: Tensor

    def of_layer(self, layer: int) -> list[int]:
        """The receivers of attention in that layer."""
        return [i for i, r in enumerate(self.receivers) if r.layer == layer and r.site is not None]

    def mlp_of(self, layer: int) -> int | None:
        """The receiver that is the input of that layer's MLP."""
        return next((i for i, r in enumerate(self.receivers) if r.name == f"mlp_in.{layer}"), None)

    @property
    def places(self) -> list[Place]:
        """What has to be read in a run to know all senders, the streams, and whether these are made of them."""
        found: list[Place] = []
        for receiver in self.receivers:
            found.append(receiver.stream)
            found += [place for stretch in receiver.course for place in (*stretch.places, *stretch.norms)]
        found += [layer.z for layer in self.structure.layers if layer.z is not None]
        return list(dict.fromkeys(found))


def edge_graph(structure: Structure) -> EdgeGraph:
    """Raises UnsupportedModel where heads or the stream between attention and MLP were not found."""
    why = _no_edges(structure)
    if why is not None:
        raise UnsupportedModel(f"{structure.model} has no edges between heads and MLPs: {why}")
    senders, heads, mlps = _senders(structure)
    receivers = _receivers(structure, heads, mlps)
    exists = torch.arange(len(senders))[:, None] < torch.tensor([r.senders for r in receivers])
    read_by = torch.zeros(len(receivers), len(senders), dtype=torch.bool)
    numbers = {name: number for number, name in enumerate(senders)}
    for i, receiver in enumerate(receivers):
        for name in readers_of(receiver.name, structure.heads, structure.kv_heads):
            read_by[i, numbers[name]] = True
    return EdgeGraph(structure, tuple(senders), tuple(heads), tuple(mlps), tuple(receivers), exists, read_by)


def _no_edges(structure: Structure) -> str | None:
    """Why there are none, if so."""
    layers = structure.layers
    lacking = [why for why in structure.missing if not why.startswith("neuron")]
    if lacking or not structure.heads:
        return "; ".join(lacking)
    if structure.tokens_first:
        return "its stream has tokens in front"
    if any(layer.block is None for layer in layers):
        return "a layer is no module of its own, or shares it with others"
    if any(layer.z is None for layer in layers):
        return "layers without attention stand between those with it"
    unknown = next((layer.block for layer in layers if layer.course is None), None)
    if unknown is not None or not structure.chained:
        where = "between two blocks" if unknown is None else f"in block {unknown!r}"
        return f"{where} more happens to the residual stream, or to what joins it, than sums, norms and factors"
    if any(step.what == "attention" and layer.z and step.place.path != layer.z.path
           for layer in layers for step in layer.course or () if isinstance(step, Joining)):  # fmt: skip
        return "a norm over all heads stands in front of attention's output projection"
    return None


def _senders(structure: Structure) -> tuple[list[str], list[int], list[int | None]]:
    """(their names, where each layer's heads begin, and its MLP)."""
    senders, heads = ["embed"], []
    mlps: list[int | None] = []
    for number, layer in enumerate(structure.layers):
        heads.append(len(senders))
        senders += [f"head.{number}.{head}" for head in range(structure.heads)]
        mlps.append(None if layer.mlp is None else len(senders))
        senders += [] if layer.mlp is None else [f"mlp_out.{number}"]
    return senders, heads, mlps


def _receivers(structure: Structure, heads: list[int], mlps: list[int | None]) -> list[Receiver]:
    spans: dict[Place, tuple[int, int]] = {}
    for layer, start, mlp in zip(structure.layers, heads, mlps, strict=True):
        spans |= {
            step.place: (start, start + structure.heads) if step.what == "attention" or mlp is None else (mlp, mlp + 1)
            for step in layer.course or ()
            if isinstance(step, Joining)
        }
    known = courses(structure, spans)
    projected = select(structure, [f"head.*.*.{kind}" for kind in "qkv"])
    found: list[Receiver] = []
    for number, layer in enumerate(structure.layers):
        found += [Receiver(s.name, number, layer.pre, known[layer.pre], s) for s in projected if s.layer == number]
        if layer.mlp is not None:
            read = layer.mid or layer.pre
            found.append(Receiver(f"mlp_in.{number}", number, read, known[read]))
    last = structure.layers[-1].post
    return [*found, Receiver("logits", len(structure.layers), last, known[last])]


def readers_of(receiver: str, heads: int, kv_heads: int) -> list[str]:
    """The senders that are made from this input: of keys and values, all heads of their group; of the logits, none."""
    parts = receiver.split(".")
    if parts[0] != "head":
        return [] if receiver == "logits" else [f"mlp_out.{parts[1]}"]
    if parts[3] == "q":
        return [f"head.{parts[1]}.{parts[2]}"]
    group = heads // kv_heads
    return [f"head.{parts[1]}.{int(parts[2]) * group + i}" for i in range(group)]


def output_matrices(twin: nn.Module, structure: Structure) -> list[Tensor]:
    """For each layer (heads, head_dim, width): what its output projection makes of each head's z, without its bias."""
    found = []
    for layer in structure.layers:
        assert layer.z is not None
        projection = shadow(twin.get_submodule(layer.z.path))
        weight: Tensor = projection.weight  # type: ignore[assignment]
        if projection._parameters.get("bias") is not None:
            projection._parameters["bias"] = torch.zeros_like(projection._parameters["bias"])  # type: ignore[assignment,arg-type]
        with torch.no_grad():
            rows = projection(torch.eye(structure.heads * structure.head_dim, dtype=weight.dtype, device=weight.device))
        found.append(rows.unflatten(0, (structure.heads, structure.head_dim)))
    return found


def by_head(z: Tensor, matrix: Tensor, rows: int) -> Tensor:
    """(rows, heads, tokens, width): what each head adds to the stream. z: heads side by side."""
    apart = z.reshape(rows, -1, *matrix.shape[:2])
    return torch.einsum("bthd,hdw->bhtw", apart, matrix)


def contributions(graph: EdgeGraph, matrices: list[Tensor], values: Mapping[Place, Tensor], rows: int) -> Tensor:
    """(rows, sender, tokens, width): what each sender adds to the stream, up to constants; linear in `values`."""
    parts = [_stream(values[graph.structure.layers[0].pre], rows)[:, None]]
    for layer, matrix in zip(graph.structure.layers, matrices, strict=True):
        assert layer.z is not None
        parts.append(by_head(values[layer.z], matrix, rows))
        if layer.mlp is not None:
            parts.append(_stream(values[layer.mlp], rows)[:, None])
    return torch.cat(parts, 1)


def check_course(graph: EdgeGraph, twin: nn.Module, values: Mapping[Place, Tensor]) -> None:
    """Raise UnsupportedModel where what inputs read is not what senders add, along the course of the stream."""
    for receiver in {receiver.stream: receiver for receiver in graph.receivers}.values():
        if not reproduces(receiver.course, twin, values, receiver.stream):
            raise UnsupportedModel(
                f"{graph.structure.model}: what {receiver.name} reads is not made of what heads and MLPs put out by "
                "sums, norms and factors alone, so that edges between them do not account for it"
            )


def _stream(tensor: Tensor, rows: int) -> Tensor:
    """(rows, tokens, width), also where the model has flattened both."""
    return tensor.reshape(rows, -1, tensor.shape[-1])
