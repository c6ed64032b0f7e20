"""Max-pooling's windows, and the backward of soft pooling over them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrib.rules.call import Call
from attrib.rules.ruled import ruled


def _pair(value: Any) -> tuple[int, int]:
    first, last = (value, value) if isinstance(value, int) else (value[0], value[-1])
    return int(first), int(last)


@dataclass(frozen=True)
class Windows:
    """The geometry of a 2-D pooling call."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @staticmethod
    def of(call: Call) -> Windows | None:
        """None where the call is not a 2-D max-pool that returns only its values."""
        if "max_pool2d" not in torch.overrides.resolve_name(call.function) or call.x.dim() != 4:
            return None
        if call.argument(6, "return_indices", False):
            return None
        kernel = _pair(call.argument(1, "kernel_size"))
        stride = call.argument(2, "stride")
        return Windows(
            kernel,
            kernel if stride is None or stride == [] else _pair(stride),
            _pair(call.argument(3, "padding", 0)),
            _pair(call.argument(4, "dilation", 1)),
        )

    def padded(self, z: Tensor, output: torch.Size) -> Tensor:
        """z with a border that no maximum comes from, wide enough for every window, ceil-mode overhang too."""
        ends = []
        for axis in (0, 1):
            span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            covered = (output[2 + axis] - 1) * self.stride[axis] + span
            ends.append(max(0, covered - z.shape[2 + axis] - self.padding[axis]))
        border = (self.padding[1], ends[1], self.padding[0], ends[0])
        return F.pad(z, border, value=torch.finfo(z.dtype).min / 4) if any(border) else z

    def slices(self, padded: Tensor, output: torch.Size) -> Iterator[Tensor]:
        """For each element of the window, a view of what it meets at all output positions."""
        rows, columns = ((n - 1) * s + 1 for n, s in zip(output[2:], self.stride, strict=True))
        for i, j in product(range(self.kernel[0]), range(self.kernel[1])):
            top, left = i * self.dilation[0], j * self.dilation[1]
            yield padded[:, :, top : top + rows : self.stride[0], left : left + columns : self.stride[1]]

    def cropped(self, padded: Tensor, z: Tensor) -> Tensor:
        """Without the border."""
        top, left = self.padding
        return padded[:, :, top : top + z.shape[2], left : left + z.shape[3]]


@dataclass(frozen=True)
class ExcitationPool:
    """Backward of softmax pooling, forward untouched: with w = softmax(z/τ) over the window and p = Σ w z,
    ∂p/∂z_i = w_i (1 + (z_i − p)/τ), which sums to 1 over the window.

    temperature: τ, in units of z.
    """

    temperature: float

    def __call__(self, call: Call) -> Any:
        windows = Windows.of(call)
        if windows is None:
            return NotImplemented

        def compute(z: Tensor) -> Any:
            y = call.function(z, *call.args[1:], **call.kwargs)
            # y must not be saved itself: an in-place ReLU may follow
            return y, (z,), lambda u, z: self._pull(u, z, windows)

        return ruled(compute, call.x)

    def _pull(self, u: Tensor, z: Tensor, windows: Windows) -> Tensor:
        """With s = z/τ and w = softmax(s): u ⊙ w ⊙ (1 + s − Σ w s), in place: on a CPU new memory costs most."""
        scaled = windows.padded(z * (1 / self.temperature), u.shape)
        parts = list(windows.slices(scaled, u.shape))
        highest = functools.reduce(torch.maximum, parts)
        weights = [torch.sub(part, highest).exp_() for part in parts]
        total = functools.reduce(Tensor.add_, weights[1:], weights[0].clone())
        mean = torch.zeros_like(total)
        for weight, part in zip(weights, parts, strict=True):
            mean.addcmul_(weight, part)
        mean.div_(total).sub_(1)
        scale = u / total
        pulled = [weight.mul_(scale).mul_(torch.sub(part, mean)) for weight, part in zip(weights, parts, strict=True)]
        grad = scaled.zero_()  # its values are not needed any more
        for values, into in zip(pulled, windows.slices(grad, u.shape), strict=True):
            into += values
        return windows.cropped(grad, z)
