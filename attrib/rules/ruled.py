"""An operation whose backward is a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attrib.rules.call import unasked

Pull = Callable[..., Any]
Computed = tuple[Tensor, Sequence[Tensor], Pull]


class RuleFunction(torch.autograd.Function):
    """forward(x…) -> value, saved tensors, and pull(grad, *saved)."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Computed], *xs: Tensor) -> Tensor:
        value, saved, ctx.pull = compute(*xs)
        if any(value is x for x in xs):
            ctx.mark_dirty(value)
        elif value._is_view():  # of which autograd would forbid any change in place
            value = value.clone()
        ctx.save_for_backward(*saved)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        # on the CPU the backward runs in the calling thread, where the mode is still in force
        with torch._C.DisableTorchFunction():
            pulled = ctx.pull(grads[0], *ctx.saved_tensors)
        return (None, *pulled) if isinstance(pulled, tuple) else (None, pulled)


def ruled(compute: Callable[..., Computed], *xs: Tensor) -> Tensor:
    """Apply a RuleFunction: `compute(*xs)` gives (value, tensors to save, pull(grad, *saved) -> grads of xs)."""
    output: Tensor = RuleFunction.apply(compute, *xs)
    return output


def on_relevance(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> None:
    """Call `hook` with what comes back to `tensor`, as its register_hook does, and not where nothing comes back.

    Behind a first-layer rule, which puts all relevance on the input itself, autograd gives hooks None.
    """
    with unasked():
        tensor.register_hook(lambda c: None if c is None else hook(c))


def frozen(run: Callable[[Tensor], Tensor], pull: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """run(x), a map whose weights are constant; `pull` is its transpose. Nothing of x is kept for the backward."""
    if torch.is_grad_enabled() and x.requires_grad:
        return ruled(lambda x: (run(x), (), pull), x)
    return run(x)
