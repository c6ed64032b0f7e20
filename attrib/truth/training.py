"""Training of small networks, the same from the same seed, without touching the caller's random state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Everything that is drawn inside comes from the seed; afterwards the random state is the caller's again."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def trained(
    module: nn.Module, logits: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, *, epochs: int, rate: float
) -> nn.Module:
    """`module` after Adam on cross-entropy, in batches of 64, with a rate that falls to zero. Ends in eval mode."""
    optimiser = torch.optim.Adam(module.parameters(), rate)
    steps = epochs * -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            loss = F.cross_entropy(logits(x[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return module.eval().requires_grad_(False)


def predicted(logits: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(batch,): the classes on top."""
    with torch.no_grad():
        return torch.cat([logits(part).argmax(1) for part in x.split(256)])
