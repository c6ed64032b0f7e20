"""Max-pooling's windows, and the backward of soft pooling over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrib.rules.engine import Call, ruled

_NEVER = -1e30  # padding: its softmax weight is exactly 0, and 0 · _NEVER is still 0


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

    def patches(self, z: Tensor, output: torch.Size) -> Tensor:
        """(batch, channel, window element, output position); padding and ceil-mode overhang hold _NEVER."""
        ends = []
        for axis in (0, 1):
            span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            covered = (output[2 + axis] - 1) * self.stride[axis] + span
            ends.append(covered - z.shape[2 + axis] - self.padding[axis])
        padded = F.pad(z, (self.padding[1], ends[1], self.padding[0], ends[0]), value=_NEVER)
        unfolded = F.unfold(padded, self.kernel, self.dilation, 0, self.stride)
        return unfolded.view(z.shape[0], z.shape[1], self.kernel[0] * self.kernel[1], -1)


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
            return y, (z,), lambda u, z: self._pull(u, z, windows)

        return ruled(compute, call.x)

    def _pull(self, u: Tensor, z: Tensor, windows: Windows) -> Tensor:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            patches = windows.patches(leaf, u.shape)
            pooled = (torch.softmax(patches / self.temperature, dim=2) * patches).sum(2)
            (grad,) = torch.autograd.grad(pooled, leaf, u.reshape(pooled.shape))
        return grad
