"""Where a transformer gets its positions from, as tensors that can receive relevance.

Found by structure: an embedding or parameter whose name speaks of positions, and what is handed to a module
as `position_embeddings` (rotary cos and sin) or `alibi`. Each becomes a leaf of its own, a row per sample, and
rotary ones a fresh leaf for every layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from attrib.errors import NotApplicable

_NAMED = re.compile(r"(^|[._])(wpe|pos_emb\w*|position\w*_embed\w*|pos_embed\w*|embed_positions)$")
_HANDED = ("position_embeddings", "alibi")


@dataclass
class PositionSources:
    """The leaves, in the order in which the forward met them: (where, tensor with a row per sample)."""

    batch: int
    leaves: list[tuple[str, Tensor]] = field(default_factory=list)
    experimental: bool = False

    def leaf(self, where: str, value: Tensor) -> Tensor:
        """A copy of `value` that requires gradients, (batch, …), noted under `where`."""
        rows = value.expand(self.batch, *value.shape[1:]) if value.shape[0] == 1 else value
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
    """(batch, tokens): relevance of a position tensor summed over all but its token axis, the first of that length."""
    shaped = relevance.reshape(batch, -1, *relevance.shape[1:])
    axis = min(i for i in range(2, shaped.dim()) if shaped.shape[i] == tokens)
    return shaped.movedim(axis, 1).flatten(2).sum(2)


@contextmanager
def position_sources(twin: nn.Module, batch: int) -> Iterator[PositionSources]:
    """Inside, positions of `twin` are leaves that require gradients. Raises NotApplicable where none is found."""
    sources = PositionSources(batch)
    handles = []
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


def _handed(sources: PositionSources, path: str) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        found = {name: kwargs[name] for name in _HANDED if kwargs.get(name) is not None}
        for name, value in found.items():
            sources.experimental |= name == "alibi"
            parts = value if isinstance(value, tuple) else (value,)
            fresh = tuple(sources.leaf(path, part) for part in parts if isinstance(part, Tensor))
            kwargs = {**kwargs, name: fresh if isinstance(value, tuple) else fresh[0]}
        return (args, kwargs) if found else None

    return hook
