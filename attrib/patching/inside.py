"""What no module puts out or is given: a tensor that one operation of a module's own code makes, met while it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrib.patching.places import Operation


def likeness(func: Any, made: Any) -> tuple[str, int, int]:
    """What operations are counted by: their name, the dimensions and the width of what they make."""
    if not isinstance(made, Tensor):
        return "", 0, 0
    return getattr(func, "__name__", ""), made.dim(), made.shape[-1] if made.dim() else 0


def wrapping(stack: ExitStack, module: nn.Module, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Until `stack` closes, the module's forward is `around(forward)`."""
    own, forward = module.__dict__.get("forward"), module.forward
    module.__dict__["forward"] = wraps(forward)(around(forward))
    if own is None:
        stack.callback(module.__dict__.pop, "forward")
    else:
        stack.callback(module.__dict__.__setitem__, "forward", own)


def at_operation(
    stack: ExitStack,
    module: nn.Module,
    operation: Operation,
    comes: Callable[[], bool],
    visit: Callable[[Tensor], Tensor | None],
) -> None:
    """Until `stack` closes, `visit` is called with what that operation makes in each call of the module that `comes`
    says is meant; what it returns, if anything, takes the tensor's place."""
    own = _Own(operation, visit)

    def around(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not comes():
                return forward(*args, **kwargs)
            with own:
                return forward(*args, **kwargs)

        return run

    wrapping(stack, module, around)
    for part in module.modules():
        if part is not module:
            stack.callback(part.register_forward_pre_hook(own.enter, prepend=True).remove)
            stack.callback(part.register_forward_hook(own.leave, always_call=True).remove)


class _Own(TorchFunctionMode):
    """In force while the module runs, within all other modes: it counts what its own code calls, not that of parts."""

    def __init__(self, operation: Operation, visit: Callable[[Tensor], Tensor | None]) -> None:
        super().__init__()
        self._like, self._number, self._visit = operation[:3], operation[3], visit
        self._inside = self._met = 0

    def __enter__(self) -> None:
        self._inside = self._met = 0
        super().__enter__()  # type: ignore[no-untyped-call]

    def enter(self, *_: Any) -> None:
        self._inside += 1

    def leave(self, *_: Any) -> None:
        self._inside -= 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name, dimensions, width = likeness(func, made)
        if self._inside or (name, dimensions, width if self._like[2] else 0) != self._like:
            return made
        self._met += 1
        new = self._visit(made) if self._met == self._number + 1 else None
        return made if new is None else new
