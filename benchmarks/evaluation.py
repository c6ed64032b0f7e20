"""`python -m benchmarks.evaluation`: what evidence costs, in forwards of the bare model, and beside Quantus.

Quantus is optional: pip install --no-deps --target FOLDER quantus==0.6.0 cachetools, and PYTHONPATH=FOLDER.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
import torchvision
import typer
from torch import Tensor, nn

import attrib
from attrib.binding import bind
from attrib.metrics.base import Subject
from attrib.metrics.randomisation import ParameterRandomisation
from attrib.metrics.removal import Deletion, Insertion, PixelFlipping
from attrib.metrics.reseeding import layers_of
from attrib.metrics.trial import Trial
from benchmarks.measure import Run, compare

_CPU = torch.device("cpu")
_PICTURES = ((48, 1), (96, 1), (192, 1), (96, 8))  # side, how many: beside Quantus
_STEPS = 288  # of pixel flipping; of every side the square divides by it


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    steps: Annotated[int, typer.Option(min=2, help="Steps of deletion and of insertion.")] = 50,
    size: Annotated[int, typer.Option(min=32, help="Side of the pictures of deletion and insertion.")] = 224,
    threads: Annotated[int, typer.Option(min=1, help="Several: beside Quantus alone, in wall time.")] = 1,
) -> None:
    """Deletion + insertion on ResNet-50 in forwards a step; flipping and randomisation on ResNet-18 beside Quantus."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    if threads == 1:
        _curves(steps, repeats, size)
        sys.stdout.flush()
    if importlib.util.find_spec("quantus") is None:
        print("Quantus is not installed: no comparison")
        return
    clock = time.process_time if threads == 1 else time.perf_counter
    for side, batch in _PICTURES:
        what = f"{batch} of {side} × {side}"
        _beside(f"pixel flipping, {what}", *_flipping(side, batch), repeats, clock)
        _beside(f"parameter randomisation, {what}", *_randomisation(side, batch), repeats, clock)
        sys.stdout.flush()


def _curves(steps: int, repeats: int, size: int) -> None:
    net = torchvision.models.resnet50().eval().requires_grad_(False)
    x = torch.randn(1, 3, size, size)
    model, maps = attrib.wrap(net), torch.rand(1, size, size)

    def both() -> None:
        trial, subject = _trial(model, x, 2 * steps), _subject(maps)
        for metric in (Deletion(steps), Insertion(steps)):
            metric.score(trial, subject)

    found = compare(_forward(net, x), {"both": both}, repeats, _CPU)["both"]
    print(f"deletion + insertion, ResNet-50, {steps} steps each: {found.time_ratio / (2 * steps):.3f} forwards a step")


def _flipping(size: int, batch: int) -> tuple[Run, Run]:
    import quantus

    net = torchvision.models.resnet18().eval().requires_grad_(False)
    x, maps, pixels = torch.randn(batch, 3, size, size), torch.rand(batch, size, size), size**2 // _STEPS
    y = net(x).argmax(1)
    model = attrib.wrap(net)
    # theirs flips single values: three times as many are a pixel with all its channels
    theirs = quantus.PixelFlipping(features_in_step=3 * pixels, perturb_baseline=0.0, **_QUIET)
    given = _given(x, y, maps[:, None].expand(batch, 3, size, size))
    return (
        lambda: PixelFlipping(pixels, "zero").score(_trial(model, x, _STEPS), _subject(maps)),
        lambda: theirs(model=net, **given),
    )


def _randomisation(size: int, batch: int) -> tuple[Run, Run]:
    import quantus

    net = torchvision.models.resnet18().eval().requires_grad_(False)
    x = torch.randn(batch, 3, size, size)
    y = net(x).argmax(1)
    model = attrib.wrap(net)
    layers = len(layers_of(net))
    theirs = quantus.MPRT(similarity_func=quantus.similarity_func.correlation_spearman, seed=42, **_QUIET)
    metric = ParameterRandomisation(stages=layers, draws=1)

    def ours() -> None:
        attrib.evaluate(model, x, "saliency", metric, y.tolist(), n_random=0)

    return ours, lambda: theirs(model=net, explain_func=_saliency, explain_func_kwargs={}, **_given(x, y, None))


_QUIET: dict[str, Any] = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}


def _given(x: Tensor, y: Tensor, maps: Tensor | None) -> dict[str, Any]:
    found = None if maps is None else np.ascontiguousarray(maps.numpy())
    return {"x_batch": x.numpy(), "y_batch": y.numpy(), "a_batch": found, "device": "cpu"}


def _saliency(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: object) -> np.ndarray:
    """The largest |gradient| over channels, (batch, 1, height, width)."""
    x = torch.as_tensor(inputs, dtype=torch.float32).requires_grad_()
    score = model(x).gather(1, torch.as_tensor(targets)[:, None]).sum()
    return torch.autograd.grad(score, x)[0].abs().amax(1, keepdim=True).numpy()


def _beside(name: str, ours: Run, theirs: Run, repeats: int, clock: Callable[[], float]) -> None:
    """Turn by turn in one process."""
    ours()
    theirs()
    ratios = []
    for _ in range(repeats):
        seconds = [_seconds(run, clock) for run in (ours, theirs)]
        ratios.append(seconds[1] / seconds[0])
    theirs_took, ours_took = seconds[1], seconds[0]
    print(f"{name}: Quantus takes {np.median(ratios):.2f} × our time ({theirs_took:.1f} s, {ours_took:.1f} s)")


def _seconds(run: Run, clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def _forward(net: nn.Module, x: Tensor) -> Run:
    def forward() -> None:
        with torch.no_grad():
            net(x)

    return forward


def _trial(model: Any, x: Tensor, passes: int) -> Trial:
    encoded = model.encode(x)
    return Trial.of(model, encoded, bind(0, len(x), model.index_of), passes)


def _subject(maps: Tensor) -> Subject:
    return Subject("given", maps.double(), lambda *_: maps.double())


if __name__ == "__main__":
    typer.run(main)
