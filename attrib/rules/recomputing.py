"""Gradient checkpointing of a twin: blocks forget what is inside them and run once more in the backward pass.

Blocks are what a network repeats: the members of one kind in its outermost lists of modules. The second run is under
the rule table that the first was under. Only the second builds a graph, so that coverage and ledger count once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from attrib.errors import NotApplicable, UnsupportedModel
from attrib.rules.engine import Engine

_LISTS = (nn.ModuleList, nn.Sequential)
_CLEAR = (Tensor, tuple, list, dict, str, int, float, type(None), torch.dtype, torch.device)


def recompute_blocks(twin: nn.Module) -> None:
    """Make every block of `twin`, a shadow, run again in the backward; again on the same twin: nothing happens.

    The first block stays as it is: "first" rules ask which linear layer runs first.
    """
    for block in list(_blocks(twin))[1:]:
        if getattr(block.forward, "func", None) is not _recomputed:
            block.forward = partial(_recomputed, block, block.forward)


def refuse_without_blocks(module: nn.Module) -> None:
    """Raise NotApplicable where the model has no list of blocks."""
    if not any(True for _ in _blocks(module)):
        raise NotApplicable("this model has no list of blocks that could be computed again one by one")


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Members of the outermost lists of two or more modules of one kind that have modules in them."""
    members = list(module.children())
    alike = len(members) > 1 and len({type(member) for member in members}) == 1
    if isinstance(module, _LISTS) and alike and all(any(member.children()) for member in members):
        yield from members
        return
    for member in members:
        yield from _blocks(member)


def _recomputed(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    given = _Tensors()
    template = given.taken_from((args, kwargs))
    modes = _get_current_function_mode_stack()
    if not given.found or given.opaque or not torch.is_grad_enabled() or not _is_closed(block, modes):
        return forward(*args, **kwargs)
    made: list[Any] = []

    def run(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        positional, named = _put_back(template, tensors)
        results = _Tensors(every=True)
        made[:] = [results.taken_from(_plain(forward(*positional, **named), block))]
        return tuple(results.found)

    outputs = _Again.apply(run, modes, *given.found)
    return _put_back(made[0], outputs)


def _is_closed(block: nn.Module, modes: list[Any]) -> bool:
    """Whether nobody looks into the block, so that nothing but its outputs is wanted of the first run."""
    if any(type(mode) is not Engine for mode in modes):
        return False
    if any(module._forward_hooks or module._forward_pre_hooks for module in block.modules()):
        return False
    return not any(tensor.requires_grad for tensor in (*block.parameters(), *block.buffers()))


def _plain(output: Any, block: nn.Module) -> Any:
    """`output`, if all tensors in it can be found."""
    parts = output if type(output) in (tuple, list) else [output]
    if any(not isinstance(part, (Tensor, tuple, list, type(None))) for part in parts):
        raise UnsupportedModel(
            f"checkpoint: {type(block).__name__} returns a {type(output).__name__}, in which nobody knows the tensors"
        )
    return output


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[[Sequence[Tensor]], tuple[Tensor, ...]], modes: list[Any], *xs: Tensor) -> Any:
        ctx.run, ctx.modes, ctx.counted = run, modes, False
        ctx.save_for_backward(*xs)
        with torch._C.DisableTorchFunction():  # no cut: the second run has the graph
            inputs = [x.detach() for x in xs]
        outputs = run(inputs)
        return tuple(output.clone() if output._is_view() else output for output in outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        with torch.enable_grad(), torch._C.DisableTorchFunction():
            leaves = [x.detach().requires_grad_() for x in ctx.saved_tensors]
            views = [leaf.view_as(leaf) for leaf in leaves]  # which a block may change in place
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            in_force = {id(mode) for mode in _get_current_function_mode_stack()}
            for mode in ctx.modes:
                if id(mode) not in in_force:
                    stack.enter_context(mode)
            if ctx.counted:  # another backward of the same graph
                stack.enter_context(_uncounted(ctx.modes))
            outputs, ctx.counted = ctx.run(views), True
            for engine in ctx.modes:
                engine.record.hidden(engine.seen.hidden([o for o in outputs if o.requires_grad]))
            pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad and g is not None]
            wanted = torch.autograd.grad([o for o, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True)
        return (None, None, *wanted)


@contextmanager
def _uncounted(engines: Sequence[Engine]) -> Iterator[None]:
    """What runs inside does not change the engines' counts."""
    kept = [engine.record.counts for engine in engines]
    for engine in engines:
        engine.record.counts = {verdict: {} for verdict in engine.record.counts}
    try:
        yield
    finally:
        for engine, counts in zip(engines, kept, strict=True):
            engine.record.counts = counts


class _Place(int):
    """Where a tensor was."""


class _Tensors:
    """The tensors in nested tuples, lists and dicts: those that carry relevance, or every floating one.

    opaque: something else was there too, which may hold tensors, and which a second run may find changed (a cache).
    """

    def __init__(self, every: bool = False) -> None:
        self.every = every
        self.found: list[Tensor] = []
        self.opaque = False

    def taken_from(self, value: Any) -> Any:
        """`value` with a place instead of each tensor."""
        if isinstance(value, Tensor) and value.is_floating_point() and (self.every or value.requires_grad):
            self.found.append(value)
            return _Place(len(self.found) - 1)
        self.opaque |= not isinstance(value, _CLEAR)
        return _rebuilt(value, self.taken_from)


def _put_back(template: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(template, _Place):
        return tensors[template]
    return _rebuilt(template, lambda part: _put_back(part, tensors))


def _rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    if type(value) in (tuple, list):
        return type(value)(change(part) for part in value)
    if type(value) is dict:
        return {key: change(part) for key, part in value.items()}
    return value
