"""Where a transformer gets its positions from, as tensors that can receive relevance.

Found by structure: an embedding or parameter whose name speaks of positions, and what is handed to a module
as `position_embeddings` (rotary cos and sin, or complex numbers of both) or `alibi`. Found by behaviour, whatever their
names: an embedding that is asked for consecutive rows, buffers that are tables of sines and cosines, and a
`position_bias`, or what is added inside an `attention_mask`, that falls or rises evenly from key to key (ALiBi). Each
becomes a leaf of its own, a row per sample where it has a batch axis, and rotary ones a fresh leaf for every layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attrib.errors import NotApplicable
from attrib.rules.precision import wide

_NAMED = re.compile(r"(^|[._])(wpe|pos|positions?|pos_(emb|enc)\w*|position\w*_(emb|enc)\w*|embed_positions)$")
_HANDED = ("position_embeddings", "alibi", "position_bias")
_UNEVEN = 0.01  # of what a bias falls or rises: steps of bfloat16 are no more even


class RowsApart(Exception):
    """A batch's positions are no row per sample: it is answered in several forwards, or they are looked up once."""


@dataclass
class PositionSources:
    """The leaves, in the order in which the forward met them: (where, tensor with a row per sample).

    of_keys: the numbers of those whose tokens are on the last axis (heads may be as many).
    shared: some leaf has no batch axis: it tells samples apart only where there is one.
    """

    batch: int
    leaves: list[tuple[str, Tensor]] = field(default_factory=list)
    of_keys: set[int] = field(default_factory=set)
    shared: bool = False

    @property
    def experimental(self) -> bool:
        """Whether ALiBi biases are among them."""
        return bool(self.of_keys)

    def leaf(self, where: str, value: Tensor, of_keys: bool = False) -> Tensor:
        """A copy of `value` that requires gradients, (batch, …) where its first axis allows, noted under `where`."""
        if value.is_complex():
            return torch.view_as_complex(self.leaf(where, torch.view_as_real(value), of_keys))
        rows = value.expand(self.batch, *value.shape[1:]) if value.shape[0] == 1 and value.dim() > 2 else value
        leaf = rows.detach().clone().requires_grad_()
        if of_keys:
            self.of_keys.add(len(self.leaves))
        self.leaves.append((where, leaf))
        return leaf

    def relevance(self, gradients: Sequence[Tensor | None], tokens: int) -> list[tuple[str, Tensor]]:
        """(where, (batch, tokens) relevance) of every leaf that relevance reached; gradients: one per leaf."""
        reached = []
        for i, ((where, leaf), gradient) in enumerate(zip(self.leaves, gradients, strict=True)):
            if gradient is not None:
                found = per_position(leaf.detach() * gradient, self.batch, tokens, i in self.of_keys)
                reached.append((where, found))
        return reached


def per_position(relevance: Tensor, batch: int, tokens: int, of_keys: bool = False) -> Tensor:
    """(batch, tokens): relevance of a position tensor summed over all but its token axis.

    That is the first axis of that length, or the last axis of all (of_keys); of a table for more positions, the first
    that is longer, and the rows from the first that relevance reached.
    """
    rows = relevance.shape[0] % batch == 0 and (batch > 1 or relevance.dim() > 2)
    shaped = relevance.reshape(batch, -1, *relevance.shape[1:]) if rows else relevance[None, None]
    axes = range(shaped.dim() - 1 if of_keys else 1, shaped.dim())
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
        if isinstance(module, nn.Embedding):
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
        raise NotApplicable(
            "no position embedding, rotary table or ALiBi bias was found in this model; positions=False asks for none"
        )


def _whole(batch: int) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.dim() > 2]
        if given and len(given[0]) < batch:
            raise RowsApart

    return hook


def _looked_up(sources: PositionSources, path: str) -> Any:
    named = _NAMED.search(path)

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if not (named or (args and _in_a_row(args[0]))):
            return output
        if output.dim() != 2:
            return sources.leaf(path, output)
        if sources.batch > 1 and is_sinusoidal(output):  # perhaps no summand but a rotation, as RoFormer's
            raise RowsApart
        leaf = sources.leaf(path, output[None])
        return leaf[0] if sources.batch == 1 else leaf

    return hook


def _in_a_row(rows: Any) -> bool:
    return isinstance(rows, Tensor) and rows.dim() in (1, 2) and rows.shape[-1] > 1 and bool((rows.diff() == 1).all())


def _replace_parameters(sources: PositionSources, path: str, module: nn.Module) -> None:
    for name, parameter in module._parameters.items():
        whole = f"{path}.{name}" if path else name
        if parameter is not None and parameter.dim() in (2, 3) and _NAMED.search(whole):
            sources.shared |= parameter.dim() == 2
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
    """Whether it rises or falls from key to key by the same step, in every head and for every query."""
    if bias.shape[-1] < 3:
        return False
    bias = wide(bias.detach())
    first, reach = bias[..., :1], bias[..., -1:] - bias[..., :1]
    line = first + reach * torch.linspace(0, 1, bias.shape[-1], dtype=bias.dtype, device=bias.device)
    return bool(reach.all()) and bool(((bias - line).abs() <= _UNEVEN * reach.abs()).all())


def _handed(sources: PositionSources, path: str) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        found = {name: parts for name in _HANDED if (parts := _parts(kwargs.get(name)))}
        if "position_bias" in found and not is_alibi(found["position_bias"][0]):
            found.pop("position_bias")
        for name, parts in found.items():
            sources.shared |= name == "position_bias" and len(parts[0]) not in (1, sources.batch)
            fresh = tuple(sources.leaf(path, part, name != "position_embeddings") for part in parts)
            kwargs = {**kwargs, name: fresh if isinstance(kwargs[name], tuple) else fresh[0]}
        if (mask := _with_bias(sources, path, kwargs.get("attention_mask"))) is not None:
            return args, {**kwargs, "attention_mask": mask}
        return (args, kwargs) if found else None

    return hook


def _parts(value: Any) -> tuple[Tensor, ...]:
    """The tensors in it that carry no relevance yet: what an outer module was handed does."""
    parts = value if isinstance(value, tuple) else (value,)
    return tuple(part for part in parts if isinstance(part, Tensor) and not part.requires_grad)


def _with_bias(sources: PositionSources, path: str, mask: Any) -> Tensor | None:
    """The mask with what heads add to their keys in it as a leaf, (batch, heads, 1, keys); None where there is none."""
    if not isinstance(mask, Tensor) or not mask.is_floating_point() or mask.requires_grad or mask.dim() != 4:
        return None
    if mask.shape[1] == 1:  # what may be seen is the same for all heads, what is added by distance is not
        return None
    sources.shared |= len(mask) > 1  # padding would hide the last keys
    bias, seen = mask[:, :, -1:], mask > torch.finfo(mask.dtype).min / 2
    if not is_alibi(bias) or not bool(torch.where(seen, mask == bias, True).all()):
        return None
    return torch.where(seen, sources.leaf(path, bias, of_keys=True), mask)
