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

from dataclasses import dataclass

import torch
from torch import Tensor

from attrib.errors import UnsupportedModel
from attrib.patching.course import Course, courses
from attrib.patching.places import Place
from attrib.patching.sites import PatchSite, select
from attrib.patching.structure import Structure


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

    senders: names in the order they are computed. mixing, mlps: by layer, what mixes positions, side by side, and its
    MLP among the senders; None without one. exists: (sender, receiver) bool. read_by: (receiver, sender) bool: the
    sender is made from that input.
    """

    structure: Structure
    senders: tuple[str, ...]
    mixing: tuple[tuple[Mixing, ...], ...]
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
        found += [mixing.z for layer in self.mixing for mixing in layer if mixing.z is not None]
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
    if any(layer.post.axes is not None and not layer.post.axes.plain for layer in layers):
        return "its hidden states have several rows for a position"
    unread = next((why for why in structure.missing if why.startswith("resid_mid")), None)
    if unread is not None:
        return unread
    if structure.past:
        what = f"layer {structure.past[0]}" if structure.past[0] < len(layers) else "the head"
        return f"{what} reads more of the layers before it than the stream that they add to"
    stacked = next((i for i, layer in enumerate(layers) if layer.further or len(layer.attentions) > 1), None)
    if stacked is not None:
        return f"layer {stacked} has several MLPs or attentions, one behind the other, of which edges know one"
    unknown = next((i for i, layer in enumerate(layers) if layer.course is None), None)
    if unknown is not None or not structure.chained:
        block = None if unknown is None else layers[unknown].block
        where = "between two blocks" if unknown is None else f"in block {block!r}" if block else f"in layer {unknown}"
        return f"{where} more happens to the residual stream, or to what joins it, than sums, norms and factors"
    return None


def _senders(structure: Structure) -> tuple[list[str], list[tuple[Mixing, ...]], list[int | None]]:
    """(their names, what mixes positions in each layer, and its MLP)."""
    senders, mixing = ["embed"], list[tuple[Mixing, ...]]()
    mlps: list[int | None] = []
    for number, layer in enumerate(structure.layers):
        beside: list[Mixing] = []
        for found in layer.joinings("attention", "mixer"):
            z = next((each.z for each in layer.attentions), None)
            read = None if z is None or z.reads == "made" else z.path
            apart = structure.heads and found.place.path == read
            name = f"{'attn' if found.what == 'attention' else 'mixer'}_out.{number}"
            names = [f"head.{number}.{head}" for head in range(structure.heads)] if apart else [name]
            span = (len(senders), len(senders) + len(names))
            beside.append(Mixing(name, found.place, span, z if apart else None))
            senders += names
        mixing.append(tuple(beside))
        has_mlp = bool(layer.joinings("mlp"))
        mlps.append(len(senders) if has_mlp else None)
        senders += [f"mlp_out.{number}"] if has_mlp else []
    return senders, mixing, mlps


def _receivers(structure: Structure, mixing: list[tuple[Mixing, ...]], mlps: list[int | None]) -> list[Receiver]:
    spans: dict[Place, tuple[int, int]] = {each.made: each.senders for layer in mixing for each in layer}
    for layer, mlp in zip(structure.layers, mlps, strict=True):
        spans |= {step.place: (mlp, mlp + 1) for step in layer.joinings("mlp") if mlp is not None}
    known = courses(structure, spans)
    found: list[Receiver] = []
    for number, (layer, beside) in enumerate(zip(structure.layers, mixing, strict=True)):
        for each in beside:
            found += _of_mixing(structure, number, each, known[layer.pre])
        for step in layer.joinings("mlp"):
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
