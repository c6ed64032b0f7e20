"""Where a transformer keeps what patching looks at, by module path; `probing.structure_of` finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from attrib.patching.places import Axes, Columns, Place


@dataclass(frozen=True)
class Projection:
    """Queries, keys or values before positions and norms of single heads are applied. columns: of each head; keys and
    values have one entry for every key-value head."""

    place: Place
    columns: tuple[Columns, ...]


@dataclass(frozen=True)
class Attention:
    """One attention of a layer. What is not found in a form that can be read is None.

    made: what it adds to the stream. z: the outputs of its heads side by side, in front of the output projection;
    heads: the columns of each. queries, keys, values: their projections.
    """

    made: Place | None = None
    z: Place | None = None
    heads: tuple[Columns, ...] = ()
    queries: Projection | None = None
    keys: Projection | None = None
    values: Projection | None = None

    @property
    def kv_heads(self) -> int:
        """How many have keys and values that are known."""
        return max(len(part.columns) if part else 0 for part in (self.keys, self.values))


@dataclass(frozen=True)
class Norm:
    """One call of a module that works position by position: which module, which of its calls, and how its tensors lie,
    as in `Place`."""

    path: str
    call: int | None = None
    axes: Axes | None = None

    @property
    def given(self) -> Place:
        return Place(self.path, "input", call=self.call, axes=self.axes)

    @property
    def made(self) -> Place:
        return Place(self.path, "output", call=self.call, axes=self.axes)

    def of(self, twin: nn.Module, tensor: Tensor) -> Tensor:
        """What the model's twin makes of (rows, tokens, width), shaped the same."""
        return self.made.rows(twin.get_submodule(self.path)(self.given.back(tensor, tensor)))


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer, (width,) or of one number, that is a factor of every row or is added to it."""

    path: str
    does: Literal["scale", "shift"]

    def of(self, twin: nn.Module) -> Tensor:
        """Its numbers in the model's twin."""
        path, _, name = self.path.rpartition(".")
        weight: Tensor = getattr(twin.get_submodule(path), name)  # a twin's parameters are plain tensors
        return weight.reshape(-1)


# what the stream or a contribution passes: a module, a weight, or a factor
Passing = Norm | Weight | float
# on the course of the stream: what it passes, and where it is `Layer.mid`
Step = Passing | Literal["mid"]


@dataclass(frozen=True)
class Joining:
    """Where the stream takes up what a component puts out: `place`, having passed `by` (Gemma's norms)."""

    what: Literal["attention", "mixer", "mlp"]
    place: Place
    by: tuple[Passing, ...]


@dataclass(frozen=True)
class Layer:
    """One block. What a model does not have, or not in a form that can be read, is None.

    block: its module; None where a layer is no module of its own (XLM), or shares it with others (ALBERT).
    pre, post: the residual stream before and after. mid: between attention and MLP; None where they run in parallel.
    attentions: one behind the other. mlp: what it adds to the stream, as they do, or to a narrower one inside
    (MobileBERT); further: the same of MLPs stacked behind that one. mixer: of what joins positions without attention.
    neurons: the input of the MLP's last projection, `units` wide; where it is a mixture of `experts`, the units of the
    first, then of the second …
    course: what happens to the stream from `pre` to `post`, in order; None where that is more than sums, norms and
    factors.
    """

    block: str | None
    pre: Place
    post: Place
    attentions: tuple[Attention, ...] = ()
    mixer: Place | None = None
    mlp: Place | None = None
    further: tuple[Place, ...] = ()
    mid: Place | None = None
    neurons: Place | None = None
    units: int = 0
    experts: int = 1
    course: tuple[Joining | Step, ...] | None = None

    def joinings(self, *kinds: str) -> list[Joining]:
        """What of these kinds joins the stream, in order."""
        return [step for step in self.course or () if isinstance(step, Joining) and step.what in kinds]


@dataclass(frozen=True)
class Structure:
    """A transformer's parts by module path.

    heads, kv_heads, head_dim: of attention; 0 where z was not found or layers differ. width: of the residual stream.
    parallel: attention and MLP both read the block's input.
    head: the last weight matrix, which makes the logits. missing: what was not found, and why.
    chained: what a block puts out is what the next is given, nothing happening in between.
    past: layers, and the head behind them, that read more of what was made from the prompt before them than the stream.
    split: attention is made from its heads' queries, keys and values and nothing else that its input goes into.
    """

    model: str
    embedding: str
    layers: tuple[Layer, ...]
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    parallel: bool
    head: str
    missing: tuple[str, ...] = ()
    chained: bool = True
    split: bool = True
    past: tuple[int, ...] = ()
