"""Baselines: the picture that stands for 'nothing there'."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attrib.errors import InputError, UnknownName
from attrib.methods.base import Question
from attrib.methods.passes import generator

BASELINES = ("zero", "mean", "blur", "noise", "white", "black")
Baseline = str | Tensor

BASELINE_HELP = (
    "The picture that stands for 'nothing there': zero (after preprocessing), mean (of each channel), blur, "
    "noise, white, black; or a tensor (channel, height, width) or (batch, channel, height, width)."
)


def baseline_of(baseline: Baseline, question: Question, seed: int = 0) -> Tensor:
    """The baseline of every sample, shaped like question.x. A name means the same in every batch."""
    x = question.x
    if isinstance(baseline, Tensor):
        return _given(baseline, x)
    if baseline not in BASELINES:
        raise UnknownName("baseline", baseline, BASELINES)
    if baseline == "zero":
        return torch.zeros_like(x)
    if baseline == "mean":
        return x.mean((2, 3), keepdim=True).expand_as(x).clone()
    if baseline == "blur":
        return blurred(x)
    low, high = _black_and_white(baseline, question)
    if baseline == "noise":
        uniform = torch.rand(tuple(x.shape[1:]), generator=generator(seed, 0), dtype=torch.float64)
        return (low + uniform.to(x.dtype).to(x.device) * (high - low)).expand_as(x)
    return (low if baseline == "black" else high).expand_as(x).clone()


def blurred(x: Tensor) -> Tensor:
    """x under a Gaussian with σ = a tenth of its shorter side, edges mirrored."""
    sigma = min(x.shape[2:]) / 10
    for dim in (2, 3):
        radius = min(int(3 * sigma + 0.5), x.shape[dim] - 1)
        offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
        kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).reshape((1, 1, -1, 1) if dim == 2 else (1, 1, 1, -1))
        padding = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
        padded = F.pad(x, padding, mode="reflect") if radius else x
        x = F.conv2d(padded, kernel.expand(x.shape[1], -1, -1, -1), groups=x.shape[1])
    return x


def equal_notes(x: Tensor, baseline: Tensor) -> tuple[str, ...]:
    """A note where the input is its own baseline, so that no difference can be explained."""
    same = (x == baseline).flatten(1).all(1).nonzero()[:, 0].tolist()
    if not same:
        return ()
    return (
        f"the baseline equals input {', '.join(map(str, same))}: there is no difference to explain; choose another",
    )


def _given(baseline: Tensor, x: Tensor) -> Tensor:
    fits = baseline.dim() in (3, 4) and tuple(baseline.shape[-3:]) == tuple(x.shape[1:])
    if not fits or (baseline.dim() == 4 and baseline.shape[0] not in (1, len(x))):
        raise InputError(
            f"a baseline of shape {tuple(baseline.shape)} does not fit inputs of shape {tuple(x.shape)}; "
            f"give {tuple(x.shape[1:])}, or a name: {', '.join(BASELINES)}"
        )
    if not baseline.isfinite().all():
        raise InputError("the baseline holds NaN or infinite values")
    return baseline.detach().to(x.dtype).to(x.device).expand_as(x).clone()


def _black_and_white(name: str, question: Question) -> tuple[Tensor, Tensor]:
    bounds = question.model.bounds()
    if bounds is not None:
        return bounds[0].to(question.x), bounds[1].to(question.x)
    if name == "noise":
        flat = question.x.flatten(1)
        return flat.amin(1)[:, None, None, None], flat.amax(1)[:, None, None, None]
    raise InputError(
        f"{question.model.name} has no preprocessing, so nobody knows what {name} is; "
        "give the baseline as a tensor, or use zero, mean, blur or noise"
    )
