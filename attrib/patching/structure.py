"""Where a transformer keeps what patching looks at, by module path; `probing.structure_of` finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Columns = tuple[int, int]  # first, and behind the last


@dataclass(frozen=True)
class Place:
    """A tensor of the model, (batch, tokens, width): the first tensor that the module at `path` puts out or is given.

    shared: others read the very same tensor too (the residual stream going past a norm): what is written there has to
    be written in place, so that they see it. changed: the model changes the tensor in place later on. call: which of
    the module's calls in a forward is meant, from 0; None where it runs once. swapped: the two dimensions that have to
    be exchanged to get (batch, tokens, width), where the model keeps it otherwise (SqueezeBERT's channels in front).
    """

    path: str
    reads: Literal["input", "output"]
    shared: bool = False
    changed: bool = False
    call: int | None = None
    swapped: tuple[int, int] | None = None

    def rows(self, tensor: Tensor) -> Tensor:
        """The model's tensor as (batch, tokens, width), or the other way round; a view."""
        return tensor if self.swapped is None else tensor.transpose(*self.swapped)


@dataclass(frozen=True)
class Projection:
    """Queries, keys or values before positions and norms of single heads are applied. columns: of each head; keys and
    values have one entry for every key-value head."""

    place: Place
    columns: tuple[Columns, ...]


@dataclass(frozen=True)
class Norm:
    """One call of a module that works position by position: which module, and which of its calls, as in `Place`."""

    path: str
    call: int | None = None

    @property
    def given(self) -> Place:
        return Place(self.path, "input", call=self.call)

    @property
    def made(self) -> Place:
        return Place(self.path, "output", call=self.call)


# what the stream or a contribution passes: a module, or a factor
Passing = Norm | float


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
    attention, mlp: what each adds to the stream; mixer: the same of what joins positions without attention.
    z: the outputs of attention's heads side by side, in front of the output projection.
    queries, keys, values: their projections. neurons: the input of the MLP's last projection.
    course: what happens to the stream from `pre` to `post`, in order; None where that is more than sums, norms and
    factors.
    """

    block: str | None
    pre: Place
    post: Place
    attention: Place | None = None
    mixer: Place | None = None
    mlp: Place | None = None
    mid: Place | None = None
    z: Place | None = None
    neurons: Place | None = None
    queries: Projection | None = None
    keys: Projection | None = None
    values: Projection | None = None
    course: tuple[Joining | Passing, ...] | None = None

    def joinings(self, *kinds: str) -> list[Joining]:
        """What of these kinds joins the stream, in order."""
        return [step for step in self.course or () if isinstance(step, Joining) and step.what in kinds]


@dataclass(frozen=True)
class Structure:
    """A transformer's parts by module path.

    heads, kv_heads, head_dim: of attention; 0 where z was not found. width: of the residual stream.
    neurons: of one MLP, 0 where they were not found.
    parallel: attention and MLP both read the block's input. final_norm: the norm behind the last block, None without.
    head: the last weight matrix, which makes the logits. missing: what was not found, and why.
    tokens_first: the stream is (tokens, batch, width), as XLNet's; its prompts are taken one at a time.
    chained: what a block puts out is what the next is given, nothing happening in between.
    split: attention is made from its heads' queries, keys and values and nothing else that its input goes into.
    """

    model: str
    embedding: str
    layers: tuple[Layer, ...]
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    neurons: int
    parallel: bool
    final_norm: str | None
    head: str
    missing: tuple[str, ...] = ()
    tokens_first: bool = False
    chained: bool = True
    split: bool = True
