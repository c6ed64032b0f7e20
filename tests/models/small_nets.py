"""A convolution with its norm, to be folded or not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import attrib
from attrib.models import VisionModel, fast

X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """conv → BatchNorm → ReLU, then `middle` of it, then logits."""

    def __init__(self, middle: nn.Module | None = None, **convolution: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, **convolution)
        self.bn = nn.BatchNorm2d(8)
        self.middle = middle if middle is not None else nn.Identity()
        self.head = nn.Linear(8, 5)
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.running_mean is not None:
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)
        self.eval()

    def forward(self, x: Tensor) -> Any:
        x = self.middle(torch.relu_(self.bn(self.conv(x))))
        return self.head(x.mean((2, 3)))


def norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())


def fast_of(module: nn.Module, **options: Any) -> VisionModel:
    return fast(attrib.wrap(module.double()), example=X.double(), **options)
