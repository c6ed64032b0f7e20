"""What is explained: a network with random weights, a batch, and one fixed target for every row."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
import torchvision
from torch import Tensor, nn

import attrib
from attrib.models import VisionModel

NETWORKS = ("resnet50", "vgg16")
_LAST_STAGE = {"resnet50": "layer4", "vgg16": "features.29"}


@dataclass
class Case:
    """One network at one batch size. All parameters are frozen, also for the peers: nobody pays for their gradients."""

    network: str
    batch: int
    device: torch.device
    size: int = 224

    @cached_property
    def module(self) -> nn.Module:
        torch.manual_seed(0)
        build = getattr(torchvision.models, self.network)
        net: nn.Module = build(weights=None).eval().requires_grad_(False).to(self.device)
        return net

    @cached_property
    def x(self) -> Tensor:
        """(batch, 3, size, size) as if preprocessed."""
        noise = torch.randn(self.batch, 3, self.size, self.size, generator=torch.Generator().manual_seed(1))
        return noise.to(self.device)

    @cached_property
    def targets(self) -> list[int]:
        return [(7 * i) % 1000 for i in range(self.batch)]

    @cached_property
    def index(self) -> Tensor:
        return torch.tensor(self.targets, device=self.device)

    @cached_property
    def wrapped(self) -> VisionModel:
        return attrib.wrap(self.module, name=self.network)

    def copied(self) -> nn.Module:
        """A copy for a peer, which may leave anything on it."""
        return copy.deepcopy(self.module)

    @property
    def last_stage(self) -> str:
        return _LAST_STAGE[self.network]

    def bare(self) -> Tensor:
        """The yardstick: one forward and one backward to the input."""
        leaf = self.x.clone().requires_grad_()
        scores = self.module(leaf).gather(1, self.index[:, None])
        return torch.autograd.grad(scores.sum(), leaf)[0]

    def forward(self) -> Tensor:
        with torch.no_grad():
            outputs: Tensor = self.module(self.x)
        return outputs
