"""oneDNN's convolution and its transpose, to which weights may be given as they lie or arranged."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from attrib.rules.onednn import usable

_ONEDNN = torch.ops.mkldnn
_NEEDED = ("_convolution_pointwise", "_convolution_transpose_pointwise")
_NEEDED_TO_ARRANGE = ("_reorder_convolution_weight", "_reorder_convolution_transpose_weight")


class Sliding(NamedTuple):
    """How a kernel slides over two axes, with zeros around: whole numbers, (rows, columns) each."""

    padding: list[int]
    stride: list[int]
    dilation: list[int]
    groups: int

    @classmethod
    def of(cls, layer: nn.Conv2d) -> Sliding:
        return cls([int(side) for side in layer.padding], list(layer.stride), list(layer.dilation), layer.groups)

    def outputs(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found: Tensor = _ONEDNN._convolution_pointwise(x, weight, bias, *self, "none", [], "")
        return found

    def pulled(self, c: Tensor, weight: Tensor, left_over: list[int]) -> Tensor:
        """c, at the outputs, through the transpose."""
        how = (self.padding, left_over, self.stride, self.dilation, self.groups)
        found: Tensor = _ONEDNN._convolution_transpose_pointwise(c, weight, None, *how, "none", [], "")
        return found

    def pulled_by_torch(self, c: Tensor, weight: Tensor, left_over: list[int]) -> Tensor:
        """The same with a gradient for c."""
        how = (self.stride, self.padding, left_over, self.groups, self.dilation)
        return torch.conv_transpose2d(c, weight, None, *how)

    def arranged(self, weight: Tensor, shape: torch.Size) -> Tensor:
        """A copy for `outputs` of x of this shape."""
        found: Tensor = _ONEDNN._reorder_convolution_weight(weight, *self, list(shape))
        return found

    def arranged_to_pull(self, weight: Tensor, left_over: list[int], shape: torch.Size) -> Tensor:
        """A copy for `pulled` of c of this shape."""
        how = (self.padding, left_over, self.stride, self.dilation, self.groups)
        found: Tensor = _ONEDNN._reorder_convolution_transpose_weight(weight, *how, list(shape))
        return found

    def multiplications(self, x: torch.Size, weight: torch.Size) -> int:
        """Of x by the whole kernel; 0 where it does not fit into x."""
        spans = [x[2 + axis] + 2 * self.padding[axis] - self.dilation[axis] * (weight[2 + axis] - 1) for axis in (0, 1)]
        rows, columns = (max(0, (span - 1) // self.stride[axis] + 1) for axis, span in enumerate(spans))
        return x[0] * weight.numel() * rows * columns

    def left_over(self, kernel: torch.Size, inputs: torch.Size, outputs: torch.Size) -> list[int]:
        """Rows and columns of the input, past the last stride, that its shape alone tells of."""
        spans = [
            (outputs[2 + axis] - 1) * self.stride[axis]
            - 2 * self.padding[axis]
            + self.dilation[axis] * (kernel[axis] - 1)
            + 1
            for axis in (0, 1)
        ]
        return [inputs[2 + axis] - span for axis, span in enumerate(spans)]


def can_slide() -> bool:
    return usable() and all(hasattr(_ONEDNN, name) for name in _NEEDED)


def can_arrange() -> bool:
    return can_slide() and all(hasattr(_ONEDNN, name) for name in _NEEDED_TO_ARRANGE)
