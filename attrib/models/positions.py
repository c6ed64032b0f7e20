"""Where a transformer gets its positions from, as tensors that can receive relevance.

Found by structure: an embedding or parameter whose name speaks of positions, and what is handed to a module
as `position_embeddings` (rotary cos and sin) or `alibi`. Found by behaviour, whatever their names: buffers that are
tables of sines and cosines, and a `position_bias` that falls or rises evenly from key to key (ALiBi). Each becomes a
leaf of its own, a row per sample where it has a batch axis, and rotary ones a fresh leaf for every layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from attrib.errors import NotApplicable
from attrib.rules.precision import wide

_NAMED = re.compile(r"(^|[._])(wpe|pos_emb\w*|position\w*_embed\w*|pos_embed\w*|embed_positions)$")
_HANDED = ("position_embeddings", "alibi", "position_bias")


class RowsApart(Exception):
    """The model answers a batch in several forwards (texts of one length at a time), which share no positions."""


@dataclass
class PositionSources:
    """The leaves, in the order in which the forward met them: (where, tensor with a row per sample).

    shared: some leaf has no batch axis: it tells samples apart only where there is one.
    """

    batch: int
    leaves: list[tuple[str, Tensor]] = field(default_factory=list)
    experimental: bool = False
    shared: bool = False

    def leaf(self, where: str, value: Tensor) -> Tensor:
        """A copy of `value` that requires gradients, (batch, …) where its first axis allows, noted under `where`."""
        rows = value.expand(self.batch, *value.shape[1:]) if value.shape[0] == 1 and value.dim() > 2 else value
        leaf = rows.detach().clone().requires_grad_()
        self.leaves.append((where, leaf))
        return leaf

    def relevance(self, gradients: Sequence[Tensor | None], tokens: int) -> list[tuple[str, Tensor]]:
        """(where, (batch, tokens) relevance) of every leaf that relevance reached; gradients: one per leaf."""
        reached = []
        for (where, leaf), gradient in zip(self.leaves, gradients, strict=True):
            if gradient is not None:
                reached.append((where, per_position(leaf.detach() * gradient, self.batch, tokens)))
        return reached


def per_position(relevance: Tensor, batch: int, tokens: int) -> Tensor:
    """(batch, tokens): relevance of a position tensor summed over all but its token axis.

    That is the first axis of that length; of a table for more positions, the first that is longer, and the rows from
    the first that relevance reached.
    """
    rows = relevance.shape[0] % batch == 0 and (batch > 1 or relevance.dim() > 2)
    shaped = relevance.reshape(batch, -1, *relevance.shape[1:]) if rows else relevance[None, None]
    axes = range(1, shaped.dim())
    exact = [i for i in axes if shaped.shape[i] == tokens]
    axis = exact[0] if exact else next(i for i in axes if shaped.shape[i] > tokens)
    summed = shaped.movedim(axis, 1).flatten(2).sum(2)
    first = 0 if exact else int(summed.abs().sum(0).ne(0).int().argmax())
    start = min(first, summed.shape[1] - tokens) if bool(summed[:, tokens:].any()) else 0
    return summed[:, start : start + tokens]


@contextmanager
def position_sources(twin: nn.Module, batch: int) -> Iterator[PositionSources]:
    """Inside, positions of `twin` are leaves that require gradients.

    Raises NotApplicable where none is found, RowsApart where `twin` is given less than the batch at once.
    """
    sources = PositionSources(batch)
    handles = [twin.register_forward_pre_hook(_whole(batch), with_kwargs=True)]
    for path, module in twin.named_modules():
        if isinstance(module, nn.Embedding) and _NAMED.search(path):
            handles.append(module.register_forward_hook(_looked_up(sources, path)))
        else:
            _replace_parameters(sources, path, module)
            handles.append(module.register_forward_pre_hook(_handed(sources, path), with_kwargs=True))
    try:
        yield sources
    finally:
        for handle in handles:
            handle.remove()
    if not sources.leaves:
        raise NotApplicable("no position embedding, rotary table or ALiBi bias was found in this model")


def _whole(batch: int) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.dim() > 2]
        if given and len(given[0]) < batch:
            raise RowsApart

    return hook


def _looked_up(sources: PositionSources, path: str) -> Any:
    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        rows = output if output.dim() == 3 else output[None]
        return sources.leaf(path, rows)

    return hook


def _replace_parameters(sources: PositionSources, path: str, module: nn.Module) -> None:
    for name, parameter in module._parameters.items():
        whole = f"{path}.{name}" if path else name
        if parameter is not None and parameter.dim() == 3 and _NAMED.search(whole):
            module._parameters[name] = sources.leaf(whole, parameter)  # type: ignore[assignment]
    for name, buffer in module._buffers.items():
        if buffer is not None and is_sinusoidal(buffer):
            sources.shared |= buffer.dim() == 2 or buffer.shape[0] != 1
            module._buffers[name] = sources.leaf(f"{path}.{name}" if path else name, buffer)


def is_sinusoidal(table: Tensor) -> bool:
    """Whether it is positions × width of sines and cosines in pairs: then all rows have the square length width/2.

    Rows of zeros (for padding) may be among them.
    """
    rows = table.reshape(-1, table.shape[-1]) if table.is_floating_point() and table.dim() in (2, 3) else table
    if rows.dim() != 2 or rows.shape[1] % 2 or len(rows) < 2 or len(rows) not in table.shape:
        return False
    rows = wide(rows)
    squares = rows.square().sum(1)
    used = squares > 0
    even = (squares[used] * 2 / rows.shape[1] - 1).abs() < 1e-3
    return bool(used.sum() > 1) and bool(even.all()) and not bool((rows[used] == rows[used][0]).all())


def is_alibi(bias: Tensor) -> bool:
    """Whether it rises or falls from key to key by the same step, another in every head."""
    steps = wide(bias.detach()).diff(dim=-1)
    return bias.shape[-1] > 2 and bool(steps.any()) and bool((steps - steps[..., :1]).abs().amax() < 1e-3)


def _handed(sources: PositionSources, path: str) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        found = {name: kwargs[name] for name in _HANDED if kwargs.get(name) is not None}
        if not isinstance(bias := found.get("position_bias"), Tensor) or bias.requires_grad or not is_alibi(bias):
            found.pop("position_bias", None)
        for name, value in found.items():
            sources.experimental |= name != "position_embeddings"
            sources.shared |= name == "position_bias" and value.shape[0] not in (1, sources.batch)
            parts = value if isinstance(value, tuple) else (value,)
            fresh = tuple(sources.leaf(path, part) for part in parts if isinstance(part, Tensor))
            kwargs = {**kwargs, name: fresh if isinstance(value, tuple) else fresh[0]}
        return (args, kwargs) if found else None

    return hook
