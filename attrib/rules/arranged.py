"""Convolutions whose weights lie as oneDNN wants them, for models that run many times with the same weights.

torch arranges a convolution's weights anew in every call, forward and backward: of a layer that sees few positions that
is more than half of the time, of all of a ResNet-50's two fifths. Here it is done once for each direction.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from attrib.rules.onednn import usable
from attrib.rules.pointwise import is_packed, layout_of
from attrib.rules.products import QuickProducts
from attrib.rules.ruled import frozen
from attrib.rules.sliding import Sliding, can_arrange
from attrib.rules.weights import Fingerprint, look, version_of
from attrib.rules.winograd import Kernels, best_side, convolved, minimal, transformed, turned, unmoved

Kept = TypeVar("Kept")


def arrange(twin: nn.Module) -> bool:
    """Let the twin's plain float32 convolutions on a CPU keep their weights arranged; False where this torch cannot.

    Each gets copies of its weights in its first call, one for each direction in which it runs. Where a table of rules,
    or whatever else looks at the operations, is in force, calls are as they were.
    """
    if not can_arrange():
        return False
    for module in twin.modules():
        if type(module) is nn.Conv2d and _is_plain(module):
            module.__class__ = ArrangedConv2d
            module.__dict__["_kept"] = _Kept()
    return True


def _is_plain(module: nn.Conv2d) -> bool:
    """Whether its call is the class's own forward, of tensors that stand in the module, with zeros around."""
    weight = module._parameters.get("weight")
    if weight is None or "forward" in module.__dict__ or module.padding_mode != "zeros":
        return False
    return isinstance(module.padding, tuple) and weight.dtype == torch.float32 and weight.device.type == "cpu"


class _Seen(NamedTuple):
    weight: Tensor
    version: int
    copies: dict[Any, Any]


class _Kept:
    """Arranged copies of a weight by their use, which all twins of a module share while it holds the same values."""

    def __init__(self) -> None:
        self._mark: Fingerprint | None = None
        self._newest: dict[Any, Any] = {}
        self._of: weakref.WeakKeyDictionary[nn.Module, _Seen] = weakref.WeakKeyDictionary()

    def of(self, module: ArrangedConv2d) -> dict[Any, Any]:
        """Those for `module`, whose weight's values are looked at once: twins live for one explanation."""
        weight = module.weight
        seen = self._of.get(module)
        if seen is None or seen.weight is not weight or seen.version != version_of(weight):
            mark = look(weight.detach())
            if mark != self._mark:
                self._mark, self._newest = mark, {}
            seen = self._of[module] = _Seen(weight, version_of(weight), self._newest)
        return seen.copies

    def __reduce__(self) -> Any:  # copies of a module keep their own
        return _Kept, ()


class ArrangedConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if type(x) is not Tensor or x.dim() != 4 or not x.numel() or not self.takes(x) or _is_watched():
            return super().forward(x)
        if is_packed(self.weight) and not self.weight.is_contiguous():  # then torch puts out packed tensors, too
            x = x.contiguous(memory_format=torch.channels_last)
        return frozen(self._run, partial(self.pulled, shape=x.shape, layout=layout_of(x)), x)

    def takes(self, x: Tensor) -> bool:
        weight = self.weight
        fits = weight.dtype == x.dtype == torch.float32 and weight.device.type == x.device.type == "cpu"
        return fits and not weight.requires_grad and usable()

    def _run(self, x: Tensor) -> Tensor:
        how = Sliding.of(self)
        if minimal(self, x):
            kernels = self._kernels("forward", x, self.weight.detach, how.padding)
            if kernels is not None:
                return unmoved(convolved(x, kernels, self.bias, how.padding), x, self.bias, how.padding)
        return how.outputs(x, self._copy("forward", lambda: how.arranged(self.weight.detach(), x.shape)), self.bias)

    def pulled(self, c: Tensor, shape: torch.Size, layout: torch.memory_format) -> Tensor:
        """c, at the outputs for inputs of this shape and layout, through the transpose."""
        how, kernel = Sliding.of(self), self.weight.shape[2:]
        left_over = how.left_over(kernel, shape, c.shape)
        if torch.is_grad_enabled() and c.requires_grad:  # somebody differentiates twice
            return how.pulled_by_torch(c, self.weight, left_over)
        c = c.contiguous(memory_format=layout)
        margins = [2 - side for side in how.padding]
        if minimal(self, c):
            kernels = self._kernels("back", c, lambda: turned(self.weight.detach()), margins)
            if kernels is not None:
                return convolved(c, kernels, None, margins)
        weight = self._copy(tuple(left_over), lambda: how.arranged_to_pull(self.weight.detach(), left_over, c.shape))
        return how.pulled(c, weight, left_over)

    def _kernels(self, use: str, x: Tensor, weight: Callable[[], Tensor], padding: Sequence[int]) -> Kernels | None:
        """None where other ways are quicker; pieces of another number of rows are computed as the first one was."""
        side = self._copy((use, x.shape[2:]), lambda: best_side(x.shape, weight().shape, padding))
        return None if side is None else self._copy((use, side), lambda: transformed(weight(), side))

    def _copy(self, use: Any, arranged: Callable[[], Kept]) -> Kept:
        copies = self.__dict__["_kept"].of(self)
        if use not in copies:
            copies[use] = arranged()
        found: Kept = copies[use]
        return found


def _is_watched() -> bool:
    """Whether a mode would see oneDNN's operation instead of the convolution."""
    return any(not isinstance(mode, QuickProducts) for mode in _get_current_function_mode_stack())
