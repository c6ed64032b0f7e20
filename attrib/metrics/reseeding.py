"""Models with random weights: a shadow's layers drawn anew, from the output to the input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def cascade(module: nn.Module, stages: int, seed: int) -> Iterator[tuple[float, nn.Module]]:
    """(share of the layers that are random, the twin), with one more group of layers random at every stage."""
    paths = layers_of(module)
    stops = sorted({round(len(paths) * (stage + 1) / stages) for stage in range(stages)} - {0})
    twin, done = shadow(module), 0
    for stop in stops:
        for layer in range(done, stop):
            reset(twin.get_submodule(paths[layer]), seed_of(seed, layer))
        done = stop
        yield stop / len(paths), twin


def one_by_one(module: nn.Module, stages: int, seed: int) -> Iterator[tuple[float, nn.Module]]:
    """The same with one group of layers random at a time and all others as they were trained."""
    paths = layers_of(module)
    stops = sorted({round(len(paths) * (stage + 1) / stages) for stage in range(stages)} - {0})
    for start, stop in zip([0, *stops[:-1]], stops, strict=True):
        twin = shadow(module)
        for layer in range(start, stop):
            reset(twin.get_submodule(paths[layer]), seed_of(seed, layer))
        yield stop / len(paths), twin


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
