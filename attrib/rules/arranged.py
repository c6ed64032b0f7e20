"""Convolutions whose weights lie as oneDNN wants them, for many forwards without a gradient.

torch arranges a convolution's weights anew in every call, which of a ResNet-18 on pictures of 96 × 96 is two fifths of
a forward of one row, and a tenth of one of sixteen. Here that is done once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attrib.rules.onednn import usable


def arrange(twin: nn.Module) -> bool:
    """Let the twin's plain float32 convolutions on a CPU keep their weights arranged; False where this torch cannot.

    Each gets a copy of its weights in its first call without a gradient; calls with one are as they were.
    """
    if not (usable() and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")):
        return False
    for module in twin.modules():
        if type(module) is nn.Conv2d and _is_plain(module):
            module.__class__ = _Arranged
    return True


def _is_plain(module: nn.Conv2d) -> bool:
    """Whether its call is the class's own forward, of tensors that stand in the module, with zeros around."""
    weight = module._parameters.get("weight")
    if weight is None or "forward" in module.__dict__ or module.padding_mode != "zeros":
        return False
    return isinstance(module.padding, tuple) and weight.dtype == torch.float32 and weight.device.type == "cpu"


class _Arranged(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if type(x) is not Tensor or x.dim() != 4 or x.dtype != torch.float32 or not x.numel() or _is_graded(x):
            return super().forward(x)
        how = (list(self.padding), list(self.stride), list(self.dilation), self.groups)
        kept: dict[str, Any] = self.__dict__
        if "_weight_arranged" not in kept:
            kept["_weight_arranged"] = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *how, list(x.shape))
        weight = kept["_weight_arranged"]
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *how, "none", [], "")
        return found


def _is_graded(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad
