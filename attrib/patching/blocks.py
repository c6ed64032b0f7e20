"""A twin's blocks, one by one: called again with other hidden states, from any position on.

The base run notes what every block was given. Causal attention looks back only, so a block can be run on the tokens
from some position on while keys and values of the tokens before come from the base run: handed over as the cache that
transformers' models use for generation (`past_key_values.update(keys, values, layer)`), whatever attention they run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attrib.patching.access import replaced
from attrib.patching.caches import Cache, Known, Leaving, Noting, Prefix
from attrib.patching.structure import Structure
from attrib.sites import first_tensor

_CACHES = ("past_key_values", "layer_past")  # what transformers' blocks call their cache
_MASK = "attention_mask"


class NotReplayable(Exception):
    """These blocks cannot be run one by one; the message says why. Caught where full recomputation is the way out."""


@dataclass(frozen=True)
class Call:
    """How the base run called one block with its prompts; others call it with rows, each `of` one of them.

    hidden, made: (prompts, tokens, width), its first argument and its output. output: what it returned around `made`.
    arguments: all but the first, by name; `cache`: which of them is the cache.
    keys, values: (prompts, heads, tokens, …) of its attention; None where they were not handed to a cache.
    folds: whether a bias (heads, …) has to be repeated for every row, as for attention on (rows · heads, …).
    """

    block: nn.Module
    hidden: Tensor
    made: Tensor
    output: Any
    arguments: dict[str, Any]
    cache: str | None
    keys: Tensor | None
    values: Tensor | None
    folds: bool = True

    @property
    def tokens(self) -> int:
        return self.hidden.shape[1]

    def whole(self, hidden: Tensor, of: Tensor | None = None) -> Tensor:
        """The block's output for hidden states (rows, tokens, width) of all positions. of: (rows,), default: all 0."""
        given = {name: value for name, value in self.arguments.items() if name != self.cache}
        of = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device) if of is None else of
        return _first(self.block(hidden, **self._for_rows(given, of)))

    def onwards(self, hidden: Tensor, start: int, of: Tensor, cache: Cache | None = None) -> Tensor:
        """The same for hidden states (rows, some tokens, width) of positions `start` and following."""
        stop = start + hidden.shape[1]
        given = {name: _cut(value, self.tokens, start, stop) for name, value in self.arguments.items()}
        if stop - start > 1 and given.get(_MASK) is None:
            # without a mask, attention would take its first query for the first token
            seen = torch.ones(self.tokens, self.tokens, dtype=torch.bool, device=hidden.device).tril()
            given[_MASK] = seen[None, None, start:stop, :stop]
        given = self._for_rows(given, of)
        given[str(self.cache)] = cache or self.prefix(start, of)
        return _first(self.block(hidden, **given))

    def last(self, hidden: Tensor, start: int, of: Tensor) -> Tensor:
        """The output of the last position alone, (rows, 1, width), for hidden states of `start` and all following.

        Of the positions before it only keys and values are computed: the block is left as soon as they are known.
        """
        if hidden.shape[1] == 1:
            return self.onwards(hidden, start, of)
        try:
            self.onwards(hidden, start, of, Leaving())
        except Known as known:
            before = self.prefix(start, of).joined(known.keys[..., :-1, :], known.values[..., :-1, :])
            return self.onwards(hidden[:, -1:], self.tokens - 1, of, Prefix(*before))
        raise NotReplayable("a block does not hand its keys and values to a cache")

    def _for_rows(self, arguments: dict[str, Any], of: Tensor) -> dict[str, Any]:
        """The prompts' arguments for rows: what has an entry for every prompt is taken, all else is shared."""
        prompts = len(self.hidden)

        def taken(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return type(value)(taken(part) for part in value)
            if not isinstance(value, Tensor) or value.dim() < 2:
                return value
            if value.dim() == 3 and len(value) > prompts and len(value) % prompts == 0:  # a bias: (prompts · heads, …)
                return value.unflatten(0, (prompts, -1))[of].flatten(0, 1) if self.folds else value
            if value.dim() == 4 and len(value) == prompts == 1:  # some want as many masks as rows (XGLM)
                return value.expand(len(of), -1, -1, -1)
            return value[of] if len(value) == prompts > 1 else value

        return {name: taken(value) for name, value in arguments.items()}

    def prefix(self, start: int, of: Tensor) -> Prefix:
        """Keys and values of the base run before `start`, for every row."""
        if self.keys is None or self.values is None:
            raise NotReplayable("a block does not hand its keys and values to a cache")
        return Prefix(self.keys[..., :start, :][of], self.values[..., :start, :][of])


def block_paths(structure: Structure) -> list[str]:
    """The blocks' modules in order. NotReplayable where a layer has none of its own."""
    paths = [layer.block for layer in structure.layers if layer.block is not None]
    if len(paths) < len(structure.layers):
        raise NotReplayable("a layer is no module of its own, or shares it with others")
    return paths


def recorded(twin: nn.Module, structure: Structure, run: Callable[[], Any], causal: bool) -> tuple[Call, ...]:
    """The calls of all blocks while `run` runs the twin on its prompts; causal: with their keys and values.

    How many prompts may not be how many heads or tokens there are, unless it is one: what blocks are given is known by
    its shape. NotReplayable where the blocks are no chain.
    """
    entered: dict[str, Tensor] = {}
    noted: dict[str, dict[str, Any]] = {path: {} for path in block_paths(structure)}
    caches = {path: Noting() for path in noted}

    def enter(path: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        hidden, arguments = _named(module, args, kwargs)
        cache = next((name for name in _CACHES if name in inspect.signature(module.forward).parameters), None)
        entered[path] = hidden
        noted[path] |= {"hidden": hidden.clone(), "arguments": arguments, "cache": cache}
        return (hidden,), {**arguments, cache: caches[path]} if causal and cache else arguments

    def leave(path: str, module: nn.Module, args: Any, output: Any) -> None:
        noted[path] |= {"output": output, "made": _first(output).clone()}

    with ExitStack() as stack:
        for path in noted:
            block = twin.get_submodule(path)
            stack.callback(block.register_forward_pre_hook(partial(enter, path), with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(partial(leave, path)).remove)
        run()
    for path, following in zip(noted, list(noted)[1:], strict=False):
        if _first(noted[path]["output"]) is not entered[following]:
            raise NotReplayable("something happens to the hidden states between two blocks")
    calls = tuple(
        Call(twin.get_submodule(path), **noted[path], keys=caches[path].keys, values=caches[path].values)
        for path in noted
    )
    return calls if _takes_rows(calls[0]) else tuple(replace(call, folds=False) for call in calls)


def _takes_rows(call: Call) -> bool:
    """Whether a bias of several heads, if there is one, has to be repeated for every row."""
    biases = [
        v for v in call.arguments.values() if isinstance(v, Tensor) and v.dim() == 3 and len(v) > len(call.hidden)
    ]
    if not biases:
        return True
    of = torch.arange(len(call.hidden), device=call.hidden.device).repeat(2)
    try:
        with torch.no_grad():
            call.whole(call.hidden[of], of)
    except RuntimeError:
        return False
    return True


def returned(call: Call, hidden: Tensor) -> Any:
    """`hidden` as the block would return it, in a tuple or bare."""
    return replaced(call.output, _first(call.output), hidden)


def _named(module: nn.Module, args: Any, kwargs: Any) -> tuple[Tensor, dict[str, Any]]:
    """The hidden states, which are the first argument, and all others by name."""
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise NotReplayable(f"a {type(module).__name__} takes arguments without a name")
        arguments |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    hidden = arguments.pop(next(iter(arguments)))
    if not isinstance(hidden, Tensor) or hidden.dim() != 3:
        raise NotReplayable(f"the first argument of a {type(module).__name__} is not (prompts, tokens, width)")
    return hidden, arguments


def _cut(value: Any, tokens: int, start: int, stop: int) -> Any:
    """A block's argument for positions start to stop − 1 of `tokens`: queries cut at both ends, keys at the end."""
    if isinstance(value, (tuple, list)):
        return type(value)(_cut(part, tokens, start, stop) for part in value)
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    if value.dim() >= 4:  # a mask or bias: (…, queries, keys)
        queries = slice(start, stop) if value.shape[-2] == tokens else slice(None)
        return value[..., queries, :stop] if value.shape[-1] == tokens else value[..., queries, :]
    place = 0 if value.dim() == 1 else 1
    if value.shape[place] == tokens:  # positions: (batch, queries, …)
        return value[start:stop] if place == 0 else value[:, start:stop]
    return value[..., :stop] if value.shape[-1] == tokens else value  # a bias by key: (heads, 1, keys)


def _first(output: Any) -> Tensor:
    tensor = first_tensor(output)
    if tensor is None:
        raise NotReplayable("a block puts out no tensor")
    return tensor


def entering(twin: nn.Module, path: str, run: Callable[[], Any]) -> Tensor:
    """What the block at `path` is given while `run` runs the twin, which is left there."""

    def leave(module: nn.Module, args: Any, kwargs: Any) -> None:
        raise _Entered(_first((*args, *kwargs.values())))

    handle = twin.get_submodule(path).register_forward_pre_hook(leave, with_kwargs=True)
    try:
        run()
    except _Entered as entered:
        return entered.hidden
    finally:
        handle.remove()
    raise NotReplayable("the first block did not run")


class _Entered(Exception):
    """What a block is given is known, which is all that was asked."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden
