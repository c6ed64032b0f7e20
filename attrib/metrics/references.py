"""Maps that know nothing of the model: what a method has to beat for its numbers to mean something."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attrib.metrics.base import Again, Subject
from attrib.metrics.trial import Trial

RANDOM = ("random", "random_regions")
_CELLS = 7


def random_maps(trial: Trial, draw: int) -> Tensor:
    """Every pixel or token for itself, uniform in [0, 1); another map for every input."""
    each = [trial.random(1, draw, number).random(trial.allowed.shape[1:]) for number in _numbers(trial)]
    return torch.stack([torch.from_numpy(one) for one in each])


def random_regions(trial: Trial, draw: int) -> Tensor:
    """7 × 7 random numbers, resized bilinearly: random, and as smooth as a map of a deep layer."""
    each = [trial.random(2, draw, number).random((_CELLS, _CELLS)) for number in _numbers(trial)]
    cells = torch.stack([torch.from_numpy(one) for one in each])[:, None]
    size = (trial.allowed.shape[1], trial.allowed.shape[2])
    return F.interpolate(cells, size, mode="bilinear", align_corners=False)[:, 0]


def centre(trial: Trial) -> Tensor:
    """A Gaussian around the middle, σ = a quarter of each side; of texts, around the middle token."""
    maps = torch.zeros(trial.allowed.shape, dtype=torch.float64)
    for row, allowed in enumerate(trial.allowed):
        places = allowed.nonzero().double()
        if len(places):
            low, high = places.amin(0), places.amax(0)
            scaled = (places - (low + high) / 2) / ((high - low + 1) / 4)
            maps[row][allowed] = torch.exp(-scaled.square().sum(1) / 2)
    return maps


def edges(x: Tensor) -> Tensor:
    """Sobel's gradient length of the mean over channels. x: (batch, channel, height, width)."""
    grey = F.pad(x.detach().cpu().double().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=torch.float64)
    across, down = F.conv2d(grey, kernel[None, None]), F.conv2d(grey, kernel.T[None, None])
    length: Tensor = (across.square() + down.square()).sqrt()[:, 0]
    return length


def references(trial: Trial, n_random: int) -> dict[str, list[Subject]]:
    """By name: n_random draws of each kind of random map, and one centre prior and edge detector."""
    found = {"random": [_randomly("random", random_maps, trial, draw) for draw in range(n_random)]}
    if not trial.is_text:
        found["random_regions"] = [_randomly("random_regions", random_regions, trial, d) for d in range(n_random)]
    middle = centre(trial)
    found["centre"] = [Subject("centre", middle, lambda model, x, target: middle)]
    if not trial.is_text:
        found["edges"] = [Subject("edges", edges(trial.x), lambda model, x, target: edges(x))]
    return found


def _randomly(name: str, make: object, trial: Trial, draw: int) -> Subject:
    calls = [0]

    def again(*_: object) -> Tensor:
        calls[0] += 1  # a random map asked for again is another one
        return make(trial, 1000 * (draw + 1) + calls[0])  # type: ignore[operator, no-any-return]

    made: Again = again
    return Subject(name, make(trial, draw), made)  # type: ignore[operator]


def _numbers(trial: Trial) -> list[int]:
    """A number for every input that does not depend on the batch it is in."""
    return [int(name[:12], 16) for name in trial.encoded.hashes]
