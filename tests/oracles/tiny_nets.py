"""Tiny networks in float64 on which every oracle can be worked out by hand."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import attrib
from attrib.models import VisionModel


class Twice(nn.Module):
    """One module used twice, a functional relu, an in-place relu, a residual add and a dict as output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.act(self.stem(x))
        y = self.again(x)
        y.relu_()
        z = torch.relu(self.again(y)) + x
        return {"logits": self.head(z.mean((2, 3)))}


def smooth() -> nn.Module:
    """conv, tanh, pool, conv, tanh, linear: no kinks."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def rectified() -> nn.Module:
    """conv, in-place relu, max-pool, conv, in-place relu, pooled, linear."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


def wrapped(net: nn.Module, x: Tensor, seed: int = 0) -> VisionModel:
    """The net with seeded weights, in x's type, as a model."""
    net.to(x.dtype)
    with torch.no_grad():
        net(x[:1])  # gives lazy layers their shape
        generator = torch.Generator().manual_seed(seed)
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)
    return attrib.wrap(net.eval())


def pictures(batch: int = 2, side: int = 8, seed: int = 1) -> Tensor:
    """(batch, 3, side, side) float64 of N(0, 1)."""
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cut(net, x, at, target):
    """Activation after module `at` of a Sequential, and the gradient there: no hooks, the net in two halves."""
    net = copy.deepcopy(net)
    for module in net:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    activation = net[: at + 1](x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net[at + 1 :](activation)[:, target].sum(), activation)
    return activation.detach(), gradient
