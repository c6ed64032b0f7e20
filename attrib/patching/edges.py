"""Edges: which component's output another component's input reads from the residual stream.

Senders are `embed` (the stream in front of the first block), each head `head.L.H` through the output projection, and
each `mlp_out.L`. Receivers are the queries, keys and values of each head (`head.L.H.q`; keys and values by key-value
head), each MLP's input `mlp_in.L`, and the stream behind the last block, `logits`. A receiver's input is the sum of
all senders before it and of constants, which is so only where nothing but sums happens to the stream.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.patching.sites import PatchSite, select
from attrib.patching.structure import Layer, Place, Structure
from attrib.rules.shadow import shadow


@dataclass(frozen=True)
class Receiver:
    """One input. stream: where it reads. site: its columns of a projection; None for an MLP and the logits.

    senders: how many of the graph's senders come before it: the first ones.
    """

    name: str
    layer: int
    stream: Place
    senders: int
    site: PatchSite | None = None


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
        """What has to be read in a run to know all senders, their streams, and whether they add up."""
        found = [self.structure.layers[0].pre, *(receiver.stream for receiver in self.receivers)]
        for layer in self.structure.layers:
            assert layer.z is not None, "`edge_graph` has looked"
            found += [layer.z, Place(layer.z.path, "output"), layer.attention, layer.pre, layer.post]
            found += [] if layer.mlp is None else [layer.mlp]
        return list(dict.fromkeys(found))


def edge_graph(structure: Structure) -> EdgeGraph:
    """Raises UnsupportedModel where heads or the stream between attention and MLP were not found."""
    lacking = [why for why in structure.missing if not why.startswith("neuron")]
    if lacking or not structure.heads or any(layer.z is None for layer in structure.layers):
        raise UnsupportedModel(f"{structure.model} has no edges between heads and MLPs: {'; '.join(lacking)}")
    senders, heads, mlps = ["embed"], [], []
    receivers: list[Receiver] = []
    projected = select(structure, [f"head.*.*.{kind}" for kind in "qkv"])
    for number, layer in enumerate(structure.layers):
        before = len(senders)
        receivers += [Receiver(s.name, number, layer.pre, before, s) for s in projected if s.layer == number]
        heads.append(before)
        senders += [f"head.{number}.{head}" for head in range(structure.heads)]
        mlps.append(None if layer.mlp is None else len(senders))
        if layer.mlp is not None:
            reads = before if layer.mid is None else len(senders)
            receivers.append(Receiver(f"mlp_in.{number}", number, layer.mid or layer.pre, reads))
            senders.append(f"mlp_out.{number}")
    last = structure.layers[-1]
    receivers.append(Receiver("logits", len(structure.layers), last.post, len(senders)))
    exists = torch.arange(len(senders))[:, None] < torch.tensor([r.senders for r in receivers])
    read_by = torch.zeros(len(receivers), len(senders), dtype=torch.bool)
    numbers = {name: number for number, name in enumerate(senders)}
    for i, receiver in enumerate(receivers):
        for name in readers_of(receiver.name, structure.heads, structure.kv_heads):
            read_by[i, numbers[name]] = True
    return EdgeGraph(structure, tuple(senders), tuple(heads), tuple(mlps), tuple(receivers), exists, read_by)


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


def check_sums(graph: EdgeGraph, values: Mapping[Place, Tensor], rows: int) -> None:
    """Raise UnsupportedModel where the stream is not the plain sum of what heads and MLPs put out."""
    name = graph.structure.model
    for number, layer in enumerate(graph.structure.layers):
        assert layer.z is not None
        projected = _stream(values[Place(layer.z.path, "output")], rows)
        added = _stream(values[layer.attention], rows)
        if not _close(projected, added):
            raise UnsupportedModel(
                f"{name} has a norm or scale between attention's output projection and the stream (in block {number}), "
                "so that a head adds nothing of its own to the stream; edges need a model with norms before attention "
                "and MLP alone"
            )
        if not _close(_sum(layer, values, rows), _stream(values[layer.post], rows)):
            raise UnsupportedModel(
                f"{name} has a norm or scale on the residual stream itself (in block {number}), so that it is not the "
                "sum of what components put out; edges need a model with norms before attention and MLP alone"
            )


def _sum(layer: Layer, values: Mapping[Place, Tensor], rows: int) -> Tensor:
    added = [layer.pre, layer.attention, *([] if layer.mlp is None else [layer.mlp])]
    return torch.stack([_stream(values[place], rows) for place in added]).sum(0)


def _close(first: Tensor, second: Tensor) -> bool:
    """Up to rounding, which is far below what a norm changes."""
    tolerance = math.sqrt(torch.finfo(first.dtype).eps) * float(second.abs().max())
    return float((first - second).abs().max()) <= tolerance


def _stream(tensor: Tensor, rows: int) -> Tensor:
    """(rows, tokens, width), also where the model has flattened both."""
    return tensor.reshape(rows, -1, tensor.shape[-1])
