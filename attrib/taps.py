"""Reading and cutting a twin at chosen layers: their outputs become leaves, and nothing before them keeps a graph."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from attrib.errors import InputError, UnknownName, UnsupportedModel
from attrib.sites import Survey, first_tensor


class Taps:
    """Inside `with`: layers whose outputs are recorded, and whose gradients can be asked for after the forward.

    Nothing before the first of them builds a graph: its output is cut off and becomes a leaf. The model goes on
    with a copy of each recorded output, so that in-place operations behind a layer do not change the record.
    A layer that runs more than once is read at its last run.
    """

    def __init__(
        self, twin: nn.Module, paths: Sequence[str], keep_inputs: bool = False, seen: Survey | None = None
    ) -> None:
        names = {path for path, _ in twin.named_modules() if path}
        for path in paths:
            if path not in names:
                raise UnknownName("layer", path, names)
        self._twin, self._paths, self._keep_inputs = twin, tuple(paths), keep_inputs
        # runs before the last one known need no graph
        self._skip = {path: 0 if seen is None else max(0, seen.runs(path) - 1) for path in paths}
        self._stack = ExitStack()
        self.outputs: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        self.runs: dict[str, int] = {}

    def __enter__(self) -> Taps:
        for path in dict.fromkeys(self._paths):
            module = self._twin.get_submodule(path)
            self._stack.callback(module.register_forward_hook(self._hook(path)).remove)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _hook(self, path: str) -> Any:
        def record(module: nn.Module, args: Any, output: Any) -> Any:
            self.runs[path] = self.runs.get(path, 0) + 1
            if self.runs[path] <= self._skip[path]:
                return output
            tensor = first_tensor(output)
            if tensor is None:
                raise InputError(
                    f"layer {path!r} puts out {type(output).__name__} without a tensor; choose another layer"
                )
            if not torch.is_grad_enabled():
                raise UnsupportedModel(
                    f"layer {path!r} runs without gradients: under no_grad, or under torch.utils.checkpoint with "
                    "use_reentrant=True; choose a layer behind that, or set use_reentrant=False"
                )
            if not tensor.requires_grad:
                tensor = tensor.detach().requires_grad_()
            if self._keep_inputs:
                self.inputs[path] = args[0].detach().clone()
            self.outputs[path] = tensor
            return _with_first(output, tensor.clone())

        return record

    def gradients(self, scores: Tensor) -> dict[str, Tensor]:
        """∂ Σ scores/∂output of every layer; zeros where the score does not depend on it."""
        missing = [path for path in self._paths if path not in self.outputs]
        if missing:
            raise InputError(f"layer {missing[0]!r} did not run in the forward pass; choose another layer")
        tensors = [self.outputs[path] for path in self._paths]
        if not scores.requires_grad:
            return {path: torch.zeros_like(t) for path, t in zip(self._paths, tensors, strict=True)}
        found = torch.autograd.grad(scores.sum(), tensors, allow_unused=True)
        return {
            path: torch.zeros_like(tensor) if gradient is None else gradient
            for path, tensor, gradient in zip(self._paths, tensors, found, strict=True)
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for every layer that ran more than once."""
        return tuple(f"layer {path} runs {n} times; its last run is read" for path, n in self.runs.items() if n > 1)


def _with_first(output: Any, tensor: Tensor) -> Any:
    """`output` with its first floating tensor replaced."""
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, dict):
        copy = output.copy() if type(output) is dict else type(output)(output)
        key = next(k for k, v in output.items() if isinstance(v, Tensor) and v.is_floating_point())
        copy[key] = tensor
        return copy
    items = list(output)
    place = next(i for i, v in enumerate(items) if isinstance(v, Tensor) and v.is_floating_point())
    items[place] = tensor
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
