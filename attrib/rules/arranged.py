"""Convolutions whose weights lie as oneDNN wants them, for models that run many times with the same weights.

torch arranges a convolution's weights anew in every call, forward and backward: of a layer that sees few positions that
is more than half of the time, of all of a ResNet-50's two fifths. Here it is done once for each direction.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from attrib.rules.onednn import usable
from attrib.rules.pointwise import is_packed
from attrib.rules.products import QuickProducts
from attrib.rules.ruled import frozen
from attrib.rules.weights import Fingerprint, glance, version_of

_ONEDNN = torch.ops.mkldnn
_NEEDED = ("_reorder_convolution_weight", "_reorder_convolution_transpose_weight", "_convolution_transpose_pointwise")


def arrange(twin: nn.Module) -> bool:
    """Let the twin's plain float32 convolutions on a CPU keep their weights arranged; False where this torch cannot.

    Each gets copies of its weights in its first call, one for each direction in which it runs. Where a table of rules,
    or whatever else looks at the operations, is in force, calls are as they were.
    """
    if not (usable() and all(hasattr(_ONEDNN, name) for name in _NEEDED)):
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
    copies: dict[Any, Tensor]


class _Kept:
    """Arranged copies of a weight by their use, which all twins of a module share while it holds the same values."""

    def __init__(self) -> None:
        self._mark: Fingerprint | None = None
        self._newest: dict[Any, Tensor] = {}
        self._of: weakref.WeakKeyDictionary[nn.Module, _Seen] = weakref.WeakKeyDictionary()

    def of(self, module: ArrangedConv2d) -> dict[Any, Tensor]:
        """Those for `module`, whose weight's values are looked at once: twins live for one explanation."""
        weight = module.weight
        seen = self._of.get(module)
        if seen is None or seen.weight is not weight or seen.version != version_of(weight):
            mark = glance(weight.detach())
            if mark != self._mark:
                self._mark, self._newest = mark, {}
            seen = self._of[module] = _Seen(weight, version_of(weight), self._newest)
        return seen.copies

    def __reduce__(self) -> Any:  # copies of a module keep their own
        return _Kept, ()


class ArrangedConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if type(x) is not Tensor or x.dim() != 4 or not x.numel() or not self._has_plain_weights(x) or _is_watched():
            return super().forward(x)
        if is_packed(self.weight) and not self.weight.is_contiguous():  # then torch puts out packed tensors, too
            x = x.contiguous(memory_format=torch.channels_last)
        return frozen(self._run, partial(self._pull, shape=x.shape, packed=is_packed(x)), x)

    def _has_plain_weights(self, x: Tensor) -> bool:
        weight = self.weight
        fits = weight.dtype == x.dtype == torch.float32 and weight.device.type == x.device.type == "cpu"
        return fits and not weight.requires_grad and usable()

    def _run(self, x: Tensor) -> Tensor:
        how = (list(self.padding), list(self.stride), list(self.dilation), self.groups)
        weight = self._copy(
            "forward", lambda: _ONEDNN._reorder_convolution_weight(self.weight.detach(), *how, list(x.shape))
        )
        found: Tensor = _ONEDNN._convolution_pointwise(x, weight, self.bias, *how, "none", [], "")
        return found

    def _pull(self, c: Tensor, shape: torch.Size, packed: bool) -> Tensor:
        """The transposed convolution."""
        c = c.contiguous(memory_format=torch.channels_last if packed else torch.contiguous_format)
        left_over = [self._left_over(shape, c.shape, axis) for axis in (0, 1)]
        padding, stride, dilation = [int(side) for side in self.padding], list(self.stride), list(self.dilation)
        if torch.is_grad_enabled() and c.requires_grad:  # somebody differentiates twice
            how_usually = (stride, padding, left_over, self.groups, dilation)
            return torch.conv_transpose2d(c, self.weight, None, *how_usually)
        how = (padding, left_over, stride, dilation, self.groups)
        weight = self._copy(
            tuple(left_over),
            lambda: _ONEDNN._reorder_convolution_transpose_weight(self.weight.detach(), *how, list(c.shape)),
        )
        found: Tensor = _ONEDNN._convolution_transpose_pointwise(c, weight, None, *how, "none", [], "")
        return found

    def _left_over(self, inputs: torch.Size, outputs: torch.Size, axis: int) -> int:
        """Rows or columns of the input, past the last stride, that its shape alone tells of."""
        padding, stride = int(self.padding[axis]), self.stride[axis]
        span = (outputs[2 + axis] - 1) * stride - 2 * padding + self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        return inputs[2 + axis] - span

    def _copy(self, use: Any, arranged: Callable[[], Tensor]) -> Tensor:
        copies = self.__dict__["_kept"].of(self)
        if use not in copies:
            copies[use] = arranged()
        found: Tensor = copies[use]
        return found


def _is_watched() -> bool:
    """Whether a mode would see oneDNN's operation instead of the convolution."""
    return any(not isinstance(mode, QuickProducts) for mode in _get_current_function_mode_stack())
