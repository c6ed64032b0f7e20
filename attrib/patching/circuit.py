"""A circuit: the edges that were kept, how well the model does on them alone, and how to draw and export them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from attrib.errors import InputError
from attrib.patching.edges import readers_of
from attrib.patching.effects import EdgeEffect
from attrib.patching.exporting import as_graphml, as_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_HARDLY = 0.1  # of the metric's change


class Size(NamedTuple):
    """A circuit of some size. asked: how many of the strongest edges; edges, nodes: what of them is on a way through.

    metric, without: the metric with these edges alone, and with all others, means over the pairs.
    faithfulness: (metric − empty) / (full − empty). completeness: the same of `without`, low where nothing that
    matters was left out.
    """

    asked: int
    edges: int
    nodes: int
    metric: float
    without: float
    faithfulness: float
    completeness: float


class Link(NamedTuple):
    """A kept edge between two nodes. receiver: the input that it leads to; several heads may share a key or value."""

    source: str
    target: str
    receiver: str
    score: float


class Cut(NamedTuple):
    """A kept edge, and what the whole model without this one edge has left of the metric's change: F(M ∖ edge)."""

    sender: str
    receiver: str
    left: float


@dataclass(frozen=True, eq=False)
class Circuit:
    """What `attrib.circuit` found.

    edges: the kept ones, strongest first; score: the mean over the pairs they were scored on. size: of these edges.
    curve: of more sizes, smallest first. full, empty: the metric of the whole model and with every edge ablated, means
    over `pairs` pairs. possible: how many edges the model has. unreached: nodes that a strong edge touches but that
    are on no way from embed to the logits, and so were dropped. about: model, method, ablation, target and prompt, for
    captions. notes: how it was run where that was not block by block. groups: how many heads there are, and how many
    key-value heads. cuts: of the strongest edges, and of the strongest out of the embeddings.
    """

    edges: tuple[EdgeEffect, ...]
    size: Size
    curve: tuple[Size, ...]
    full: float
    empty: float
    pairs: int
    possible: int
    unreached: int
    groups: tuple[int, int]
    about: dict[str, str]
    notes: tuple[str, ...] = ()
    cuts: tuple[Cut, ...] = ()

    @property
    def faithfulness(self) -> float:
        """F(C) = (m(C) − m(∅)) / (m(M) − m(∅)): 1 where the circuit alone does what the model does."""
        return self.size.faithfulness

    @property
    def completeness(self) -> float:
        """F(M ∖ C): 0 where the model without the circuit does nothing of it."""
        return self.size.completeness

    @property
    def bottleneck(self) -> Cut | None:
        """The strongest edge without which hardly anything of the metric's change is left."""
        return next((cut for cut in self.cuts if abs(cut.left) < _HARDLY), None)

    @property
    def reading(self) -> str:
        """What completeness says here, in a sentence."""
        cut = self.bottleneck
        if cut is None and max(self.completeness, 0.0) < _HARDLY and self.faithfulness < 1 - _HARDLY:
            return (
                f"Neither these edges alone nor all others carry the change: {self.faithfulness:.0%} and "
                f"{self.completeness:z.0%} of it. The way leads through both, so a completeness near 0 does not say "
                "that nothing is missing; read faithfulness."
            )
        if cut is None:
            return (
                "Completeness is what the model does without these edges: near 0, nothing that matters was left out; "
                "near 1, other edges do the same."
            )
        return (
            f"Without the one edge {cut.sender} → {cut.receiver}, {cut.left:z.0%} of the change is left: everything "
            "passes there, so a completeness near 0 says nothing of the other edges; read faithfulness."
        )

    @property
    def dropped(self) -> int:
        """Edges that were strong enough but are on no way from embed to the logits."""
        return self.size.asked - self.size.edges

    @property
    def links(self) -> tuple[Link, ...]:
        """The kept edges between nodes; one into keys or values of a group, once for each head of it in the circuit."""
        sending = {edge.sender for edge in self.edges}
        found = []
        for sender, receiver, score in self.edges:
            readers = ["logits"] if receiver == "logits" else readers_of(receiver, *self.groups)
            found += [Link(sender, node, receiver, score) for node in readers if node == "logits" or node in sending]
        return tuple(found)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names in the order they are computed: embed, head.L.H (or attn_out.L, mixer_out.L), mlp_out.L, logits."""
        names = {name for link in self.links for name in (link.source, link.target)}
        return tuple(sorted(names, key=_order))

    def plot(self) -> Figure:
        """Faithfulness and completeness against the number of edges, as a matplotlib figure."""
        from attrib.render.circuit import curve_figure  # deferred: matplotlib is slow to import

        return curve_figure(self)

    def draw(self, most: int = 150) -> Figure:
        """The circuit as a graph, layers upwards, its `most` strongest edges: a matplotlib figure."""
        from attrib.render.circuit import graph_figure

        return graph_figure(self, most)

    def to_json(self) -> str:
        """Nodes, edges, curve and what they are about, as a JSON object in ASCII."""
        return as_json(self)

    def to_graphml(self) -> str:
        """The same graph as GraphML; what XML cannot hold is written as \\u0000. networkx and others read it."""
        return as_graphml(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a .json or .graphml file. Raises InputError for another ending."""
        writers = {".json": self.to_json, ".graphml": self.to_graphml}
        wanted = Path(path)
        if wanted.suffix not in writers:
            raise InputError(f"a circuit is saved as {' or '.join(writers)}, not as {wanted.suffix or wanted.name!r}")
        wanted.write_text(writers[wanted.suffix](), encoding="utf-8")
        return wanted

    def __str__(self) -> str:
        head = f"{'edges':>8} {'nodes':>6} {'faithfulness':>13} {'completeness':>13}"
        rows = [f"{s.edges:8} {s.nodes:6} {s.faithfulness:z13.3f} {s.completeness:z13.3f}" for s in self.curve]
        about = (
            f"{self.size.edges} of {self.possible} edges, {self.size.nodes} nodes; {self.dropped} more lead nowhere; "
            f"metric {self.full:.3f} with all edges, {self.empty:.3f} with none, {self.size.metric:.3f} with these"
        )
        return "\n".join([about, head, *rows, self.reading, *self.notes])


def layer_rank(name: str) -> int:
    """How early a node is computed: embed 0, heads or mixer of layer L 2L + 1, its MLP 2L + 2; the logits come last."""
    kind, _, rest = name.partition(".")
    if kind in ("embed", "logits"):
        return 0 if kind == "embed" else 10**6
    return 2 * int(rest.split(".")[0]) + (2 if kind == "mlp_out" else 1)


def _order(name: str) -> tuple[Any, ...]:
    return layer_rank(name), int(name.split(".")[-1]) if name.startswith("head") else 0
