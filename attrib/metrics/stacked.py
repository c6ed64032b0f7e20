"""A twin that computes every row with the weights of that row's stage: many randomised networks as one.

Weights are constant here, so a layer is a function of its rows with a gradient for these alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.metrics.reseeding import Draw
from attrib.models.folding import is_as_written
from attrib.rules.ruled import frozen
from attrib.rules.shadow import shadow
from attrib.rules.subpixel import input_gradient

BY_ROW = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def stacked(draw: Draw, stages: Sequence[range], batch: int) -> nn.Module:
    """A twin for stages × batch rows, those of one stage together, in which the layers of their stage are random.

    For one forward, of the same inputs in every stage.
    """
    twin = shadow(draw.module)
    swapped: dict[int, nn.Module] = {}
    apart: set[int] = set()
    for place, path in enumerate(draw.paths):
        own = twin.get_submodule(path)
        layers = [draw.layer(place) if place in random else own for random in stages]
        swapped[id(own)] = _kind(own)(layers, own, batch, apart)
    for parent in list(twin.modules()):
        for name, child in parent._modules.items():
            parent._modules[name] = swapped.get(id(child), child)
    return twin


def _kind(layer: nn.Module) -> type[_ByRow]:
    if is_as_written(layer):
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and isinstance(layer.padding, tuple):
            return _Convolutions
        if type(layer) in _NORMS and layer.running_mean is not None:
            return _Norms
    return _ByRow


class _ByRow(nn.Module):
    """Each stage's rows by the layer of that stage.

    apart: the stages that have come upon a random layer, which all layers of one twin tell each other.
    """

    def __init__(self, layers: Sequence[nn.Module], own: nn.Module, batch: int, apart: set[int]) -> None:
        super().__init__()
        self.layers, self.own, self.batch, self.apart = list(layers), own, batch, apart

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != len(self.layers) * self.batch:
            raise UnsupportedModel(f"{len(x)} rows where there are {len(self.layers) * self.batch}")
        self.apart |= {stage for stage, layer in enumerate(self.layers) if layer is not self.own}
        return self._of_all(x)

    def _of_all(self, x: Tensor) -> Tensor:
        return _each(x, self._runs(), lambda run, part: [run.layer(part)])

    def _runs(self) -> list[_Run]:
        kinds = groupby(range(len(self.layers)), key=lambda stage: (id(self.layers[stage]), stage in self.apart))
        return [
            _Run(self.layers[stages[0]], len(stages) * self.batch, stages[0] not in self.apart)
            for stages in (list(stages) for _, stages in kinds)
        ]


class _Run(NamedTuple):
    """Rows one after the other that one layer computes; same: those of every stage in it are still the same."""

    layer: Any
    rows: int
    same: bool


def _each(x: Tensor, runs: Sequence[_Run], compute: Callable[[_Run, Tensor], list[Tensor]]) -> Tensor:
    parts = x.split([run.rows for run in runs])
    found = [piece for run, part in zip(runs, parts, strict=True) for piece in compute(run, part)]
    return found[0] if len(found) == 1 else torch.cat(found)


class _Norms(_ByRow):
    """BatchNorm as what it is with constant statistics: a factor and a summand for every channel of a row."""

    def _of_all(self, x: Tensor) -> Tensor:
        runs = self._runs()
        factors, summands = zip(*(_affine(run.layer) for run in runs), strict=True)

        def by_row(each: Sequence[Tensor]) -> Tensor:
            parts = [one.expand(run.rows, -1) for one, run in zip(each, runs, strict=True)]
            return torch.cat(parts).view(len(x), -1, *[1] * (x.dim() - 2))

        return torch.addcmul(by_row(summands), x, by_row(factors))


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    factor = (norm.running_var + norm.eps).rsqrt()
    factor = factor if norm.weight is None else factor * norm.weight
    summand = -norm.running_mean * factor
    return factor, summand if norm.bias is None else summand + norm.bias


class _Convolutions(_ByRow):
    """Rows that are still the same in every stage are computed once; what comes back to them may differ."""

    def _of_all(self, x: Tensor) -> Tensor:
        runs, size = self._runs(), x.shape[2:]
        return frozen(
            lambda x: _each(x, runs, self._computed),
            lambda c: _each(c, runs, lambda run, part: [input_gradient(part, run.layer, size)]),
            x,
        )

    def _computed(self, run: _Run, x: Tensor) -> list[Tensor]:
        if run.same:
            return [run.layer(x[: self.batch])] * (len(x) // self.batch)
        return [run.layer(x)]
