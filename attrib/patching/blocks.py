"""A twin's blocks, one by one: the base run notes how every block was called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attrib.patching.access import replaced
from attrib.patching.caches import Noting
from attrib.patching.calls import Call, NotReplayable, made_by
from attrib.patching.structure import Structure

_CACHES = ("past_key_values", "layer_past")  # what transformers' blocks call their cache


def block_paths(structure: Structure) -> list[str]:
    """The blocks' modules in order. NotReplayable where a layer has none of its own."""
    paths = [layer.block for layer in structure.layers if layer.block is not None]
    if len(paths) < len(structure.layers):
        raise NotReplayable("a layer is no module of its own, or shares it with others")
    if structure.past:  # what a patch does to that is in no call's noted arguments
        raise NotReplayable("a layer reads more of the layers before it than the stream")
    if any(layer.pre.axes or layer.post.axes for layer in structure.layers):
        raise NotReplayable("a block is given tokens or channels in front, or several rows for a position")
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
        noted[path] |= {"output": output, "made": made_by(output).clone()}

    with ExitStack() as stack:
        for path in noted:
            block = twin.get_submodule(path)
            stack.callback(block.register_forward_pre_hook(partial(enter, path), with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(partial(leave, path)).remove)
        run()
    for path, following in zip(noted, list(noted)[1:], strict=False):
        if made_by(noted[path]["output"]) is not entered[following]:
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
    return replaced(call.output, made_by(call.output), hidden)


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


def entering(twin: nn.Module, path: str, run: Callable[[], Any]) -> Tensor:
    """What the block at `path` is given while `run` runs the twin, which is left there."""

    def leave(module: nn.Module, args: Any, kwargs: Any) -> None:
        raise _Entered(made_by((*args, *kwargs.values())))

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
