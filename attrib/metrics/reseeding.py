"""Models with random weights: a shadow's layers drawn anew, from the output to the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrib.rules.shadow import shadow

# methods of tensors and functions of torch.nn.init: those of init that show themselves to a mode hide what they call
_DRAWS = frozenset(
    {"uniform_", "normal_", "random_", "bernoulli_", "exponential_", "cauchy_", "log_normal_", "kaiming_uniform_"}
)


def layers_of(module: nn.Module) -> list[str]:
    """Paths of the modules with parameters of their own, from the output to the input: the reverse of their order."""
    paths = [path for path, part in module.named_modules() if any(p is not None for p in part._parameters.values())]
    return paths[::-1]


def seed_of(seed: int, layer: int) -> int:
    """A layer's own seed: layers of one shape must not get the same weights."""
    return int(np.random.SeedSequence((seed, layer % 2**32)).generate_state(1)[0])


@dataclass(frozen=True)
class Stage:
    """layers: which are random, places in `layers_of`. share: of all layers, those that are random up to this stage."""

    share: float
    layers: range


def cascading(layers: int, stages: int) -> list[Stage]:
    """One more group of layers random at every stage, from the output on, in the end all."""
    return [Stage(stop / layers, range(stop)) for stop in _stops(layers, stages)]


def one_by_one(layers: int, stages: int) -> list[Stage]:
    """One group of layers random at a time and all others as they were trained."""
    stops = _stops(layers, stages)
    return [Stage(stop / layers, range(start, stop)) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _stops(layers: int, stages: int) -> list[int]:
    return sorted({round(layers * (stage + 1) / stages) for stage in range(stages)} - {0})


class Draw:
    """The layers of a module drawn anew, each once and with a seed of its own."""

    def __init__(self, module: nn.Module, seed: int) -> None:
        self.module = module
        self.paths = layers_of(module)
        self._seed = seed
        self._layers: dict[int, nn.Module] = {}

    def layer(self, place: int) -> nn.Module:
        """The layer at that place of `layers_of` with its random weights, a twin of its own."""
        if place not in self._layers:
            drawn = shadow(self.module.get_submodule(self.paths[place]))
            reset(drawn, seed_of(self._seed, place))
            self._layers[place] = drawn
        return self._layers[place]

    def twin(self, layers: range) -> nn.Module:
        """A twin of the module in which these layers are random."""
        twin = shadow(self.module)
        for place in layers:
            own, drawn = twin.get_submodule(self.paths[place]), self.layer(place)
            own._parameters.update(drawn._parameters)
            own._buffers.update(drawn._buffers)
        return twin


def reset(module: nn.Module, seed: int) -> None:
    """Draw a twin's own weights anew: as its class initialises them, or shuffled where it does not say how.

    The tensors are replaced, never written to: the user's model has the old ones. Drawn on the CPU, so that the
    weights are the same on every device; the global random state is neither read nor changed.
    """
    shuffling, drawing = (torch.Generator().manual_seed(seed) for _ in range(2))
    tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
    trained = [{name: tensor for name, tensor in table.items() if tensor is not None} for table in tables]
    for table, known in zip(tables, trained, strict=True):
        table.update({name: tensor.detach().cpu().clone() for name, tensor in known.items()})
    again: Callable[[], Any] | None = getattr(module, "reset_parameters", None)
    if again is not None:
        with torch.no_grad(), _Drawing(drawing):
            again()
    for table, known in zip(tables, trained, strict=True):
        for name, tensor in known.items():
            fresh = table[name].detach()
            if table is tables[0] and torch.equal(fresh, tensor.cpu()):
                fresh = _shuffled(fresh, shuffling)
            table[name] = fresh.to(tensor.device)


def _shuffled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    return tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape)


class _Drawing(TorchFunctionMode):
    """Random numbers drawn in place come from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _DRAWS and kwargs.get("generator") is None:
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)
