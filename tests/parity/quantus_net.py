"""The networks that Quantus and attrib are asked about; weights from a seed."""

from __future__ import annotations

import torch
from torch import nn

SIDE = 12


def small_net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
        )  # fmt: skip
        for parameter in net.parameters():
            parameter.data *= 3  # so that some predictions flip
    return net.eval()


def one_layer() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 3)).eval()
