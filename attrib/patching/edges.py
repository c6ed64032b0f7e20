"""Edges: which component's output another component's input reads from the residual stream.

Senders are `embed` (the stream in front of the first block), each head `head.L.H` through the output projection, and
each `mlp_out.L`. Receivers are the queries, keys and values of each head (`head.L.H.q`; keys and values by key-value
head), each MLP's input `mlp_in.L`, and the stream behind the last block, `logits`. A receiver's input is made of all
senders before it and of constants by sums, and by the norms that stand behind components or on the stream.

Where heads cannot be told apart in the sum (a norm over all of them, DiffLlama's differences), attention sends as one,
`attn_out.L`; where its input goes into more than queries, keys and values of single heads (DeepSeek's shared keys,
gates), it receives as one, `attn_in.L`. What mixes positions without attention is `mixer_out.L` and `mixer_in.L`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.patching.course import Course, courses, reproduces
from attrib.patching.sites import PatchSite, select
from attrib.patching.structure import Joining, Layer, Place, Structure
from attrib.rules.shadow import shadow


@dataclass(frozen=True)
class Receiver:
    """One input. stream: where it reads, and what the stream is made of there, from the first senders on.

    site: its columns of a projection; else made: what the component makes of its whole input; None for the logits.
    """

    name: str
    layer: int
    stream: Place
    course: Course
    site: PatchSite | None = None
    made: Place | None = None

    @property
    def senders(self) -> int:
        """How many of the graph's senders come before it: the first ones."""
        return max(stretch.senders[1] for stretch in self.course)


@dataclass(frozen=True)
class Mixing:
    """What mixes positions in a layer. name: of its site, `attn_out.L` or `mixer_out.L`. made: what joins the stream.

    senders: which of the graph's. z: where their outputs are side by side; None where it sends as one.
    """

    name: str
    made: Place
    senders: tuple[int, int]
    z: Place | None

    @property
    def part(self) -> slice:
        return slice(*self.senders)


@dataclass(frozen=True, eq=False)
class EdgeGraph:
    """All edges of a model.

    senders: names in the order they are computed. mixing, mlps: by layer, what mixes positions, and its MLP among the
    senders; None without one. exists: (sender, receiver) bool. read_by: (receiver, sender) bool: the sender is made
    from that input.
    """

    structure: Structure
    senders: tuple[str, ...]
    mixing: tuple[Mixing | None, ...]
    mlps: tuple[int | None, ...]
    receivers: tuple[Receiver, ...]
    exists: Tensor
    read_by: Tensor

    def of_layer(self, layer: int) -> list[int]:
        """The receivers of what mixes positions in that layer."""
        return [
            i for i, r in enumerate(self.receivers) if r.layer == layer and (r.site or not r.name.startswith("mlp"))
        ]

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
        found += [mixing.z for mixing in self.mixing if mixing is not None and mixing.z is not None]
        return list(dict.fromkeys(found))


def edge_graph(structure: Structure) -> EdgeGraph:
    """Raises UnsupportedModel where the stream is more than a sum of components."""
    why = _no_edges(structure)
    if why is not None:
        raise UnsupportedModel(f"{structure.model} has no edges between components: {why}")
    senders, mixing, mlps = _senders(structure)
    receivers = _receivers(structure, mixing, mlps)
    exists = torch.arange(len(senders))[:, None] < torch.tensor([r.senders for r in receivers])
    read_by = torch.zeros(len(receivers), len(senders), dtype=torch.bool)
    numbers = {name: number for number, name in enumerate(senders)}
    for i, receiver in enumerate(receivers):
        for name in readers_of(receiver.name, structure.heads, structure.kv_heads):
            if name in numbers:
                read_by[i, numbers[name]] = True
    return EdgeGraph(structure, tuple(senders), tuple(mixing), tuple(mlps), tuple(receivers), exists, read_by)


def _no_edges(structure: Structure) -> str | None:
    """Why there are none, if so."""
    layers = structure.layers
    if structure.tokens_first:
        return "its stream has tokens in front"
    if any(layer.post.swapped for layer in layers):
        return "its hidden states have channels in front of tokens"
    unread = next((why for why in structure.missing if why.startswith("resid_mid")), None)
    if unread is not None:
        return unread
    unknown = next((i for i, layer in enumerate(layers) if layer.course is None), None)
    if unknown is not None or not structure.chained:
        block = None if unknown is None else layers[unknown].block
        where = "between two blocks" if unknown is None else f"in block {block!r}" if block else f"in layer {unknown}"
        return f"{where} more happens to the residual stream, or to what joins it, than sums, norms and factors"
    if any(len(_joinings(layer, "attention", "mixer")) > 1 for layer in layers):
        return "attention and another mixer of positions stand in one layer"
    return None


def _joinings(layer: Layer, *kinds: str) -> list[Joining]:
    return [step for step in layer.course or () if isinstance(step, Joining) and step.what in kinds]


def _senders(structure: Structure) -> tuple[list[str], list[Mixing | None], list[int | None]]:
    """(their names, what mixes positions in each layer, and its MLP)."""
    senders, mixing = ["embed"], list[Mixing | None]()
    mlps: list[int | None] = []
    for number, layer in enumerate(structure.layers):
        found = next(iter(_joinings(layer, "attention", "mixer")), None)
        apart = structure.heads and found is not None and layer.z is not None and found.place.path == layer.z.path
        kind = "attn_out" if found is not None and found.what == "attention" else "mixer_out"
        names = [f"head.{number}.{head}" for head in range(structure.heads)] if apart else [f"{kind}.{number}"]
        if found is None:
            mixing.append(None)
        else:
            span = (len(senders), len(senders) + len(names))
            mixing.append(Mixing(f"{kind}.{number}", found.place, span, layer.z if apart else None))
            senders += names
        has_mlp = bool(_joinings(layer, "mlp"))
        mlps.append(len(senders) if has_mlp else None)
        senders += [f"mlp_out.{number}"] if has_mlp else []
    return senders, mixing, mlps


def _receivers(structure: Structure, mixing: list[Mixing | None], mlps: list[int | None]) -> list[Receiver]:
    spans: dict[Place, tuple[int, int]] = {each.made: each.senders for each in mixing if each is not None}
    for layer, mlp in zip(structure.layers, mlps, strict=True):
        spans |= {step.place: (mlp, mlp + 1) for step in _joinings(layer, "mlp") if mlp is not None}
    known = courses(structure, spans)
    found: list[Receiver] = []
    for number, (layer, each) in enumerate(zip(structure.layers, mixing, strict=True)):
        if each is not None:
            found += _of_mixing(structure, number, each, known[layer.pre])
        for step in _joinings(layer, "mlp"):
            read = layer.mid or layer.pre
            found.append(Receiver(f"mlp_in.{number}", number, read, known[read], made=step.place))
    last = structure.layers[-1].post
    return [*found, Receiver("logits", len(structure.layers), last, known[last])]


def _of_mixing(structure: Structure, number: int, mixing: Mixing, course: Course) -> list[Receiver]:
    pre, kind = structure.layers[number].pre, mixing.name.partition("_")[0]
    if kind == "attn" and structure.split:
        projected = select(structure, [f"head.{number}.*.{part}" for part in "qkv"])
        return [Receiver(site.name, number, pre, course, site) for site in projected]
    return [Receiver(f"{kind}_in.{number}", number, pre, course, made=mixing.made)]


def readers_of(receiver: str, heads: int, kv_heads: int) -> list[str]:
    """The names of senders that are made from this input, whether they send apart or as one: of keys and values, all
    heads of their group; of the logits, none."""
    kind, *parts = receiver.split(".")
    if kind != "head":
        every = [f"head.{parts[0]}.{head}" for head in range(heads)] if kind == "attn_in" else []
        return [] if receiver == "logits" else [*every, f"{kind.partition('_')[0]}_out.{parts[0]}"]
    group = 1 if parts[2] == "q" else heads // kv_heads
    return [*(f"head.{parts[0]}.{int(parts[1]) * group + i}" for i in range(group)), f"attn_out.{parts[0]}"]


def output_matrices(twin: nn.Module, graph: EdgeGraph) -> list[Tensor | None]:
    """For each layer (heads, head_dim, width): what its output projection makes of each head's z, without its bias;
    None where heads do not send apart."""
    found: list[Tensor | None] = []
    heads, width = graph.structure.heads, graph.structure.head_dim
    for mixing in graph.mixing:
        if mixing is None or mixing.z is None:
            found.append(None)
            continue
        projection = shadow(twin.get_submodule(mixing.z.path))
        weight: Tensor = projection.weight  # type: ignore[assignment]
        if projection._parameters.get("bias") is not None:
            projection._parameters["bias"] = torch.zeros_like(projection._parameters["bias"])  # type: ignore[assignment,arg-type]
        with torch.no_grad():
            rows = projection(torch.eye(heads * width, dtype=weight.dtype, device=weight.device))
        found.append(rows.unflatten(0, (heads, width)))
    return found


def by_head(z: Tensor, matrix: Tensor, rows: int) -> Tensor:
    """(rows, heads, tokens, width): what each head adds to the stream. z: heads side by side."""
    apart = z.reshape(rows, -1, *matrix.shape[:2])
    return torch.einsum("bthd,hdw->bhtw", apart, matrix)


def sent(mixing: Mixing, matrix: Tensor | None, values: Mapping[Place, Tensor], rows: int) -> Tensor:
    """(rows, senders, tokens, width): what the senders of a layer's attention or mixer add to the stream."""
    if mixing.z is None or matrix is None:
        return _stream(values[mixing.made], rows)[:, None]
    return by_head(values[mixing.z], matrix, rows)


def contributions(graph: EdgeGraph, matrices: list[Tensor | None], values: Mapping[Place, Tensor], rows: int) -> Tensor:
    """(rows, sender, tokens, width): what each sender adds to the stream, up to constants; linear in `values`."""
    parts = [_stream(values[graph.structure.layers[0].pre], rows)[:, None]]
    for layer, mixing, matrix in zip(graph.structure.layers, graph.mixing, matrices, strict=True):
        if mixing is not None:
            parts.append(sent(mixing, matrix, values, rows))
        parts += [_stream(values[step.place], rows)[:, None] for step in _joinings(layer, "mlp")]
    return torch.cat(parts, 1)


def check_course(graph: EdgeGraph, twin: nn.Module, values: Mapping[Place, Tensor]) -> None:
    """Raise UnsupportedModel where what inputs read is not what senders add, along the course of the stream."""
    for receiver in {receiver.stream: receiver for receiver in graph.receivers}.values():
        if not reproduces(receiver.course, twin, values, receiver.stream):
            raise UnsupportedModel(
                f"{graph.structure.model}: what {receiver.name} reads is not made of what components put out by "
                "sums, norms and factors alone, so that edges between them do not account for it"
            )


def _stream(tensor: Tensor, rows: int) -> Tensor:
    """(rows, tokens, width), also where the model has flattened both."""
    return tensor.reshape(rows, -1, tensor.shape[-1])
