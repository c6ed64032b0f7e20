"""Folding BatchNorm into the layer before it, wherever one watched forward shows that this changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrib.rules.precision import wide

_FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# exact types: a subclass may do more than normalise (timm's BatchNormAct2d also activates)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def fold_norms(twin: nn.Module, x: Tensor) -> None:
    """Fold in place; `twin` must be a shadow that nobody else uses. x: (1, ...) an input to watch one forward on."""
    for linear, norm, given in _foldable_pairs(twin, x):
        _fold(linear, norm, given)


class _Watch(TorchFunctionMode):
    """Sees one forward: which norm takes what a layer put out, how often modules run, and what is made of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[int] = Counter()  # of modules, by id
        self.uses: Counter[int] = Counter()  # of layers' outputs, by id: operations that make a tensor of them
        self.outputs: dict[int, tuple[nn.Module, Tensor]] = {}  # holds them, so that no id is used again
        self.given: dict[int, Tensor] = {}
        self.pairs: list[tuple[nn.Module, nn.Module, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(True for _ in _tensors_in(result)):
            self.used((args, kwargs))
        return result

    def used(self, value: Any) -> None:
        """Count what is among the tensors in `value`."""
        self.uses.update(id(tensor) for tensor in _tensors_in(value) if id(tensor) in self.outputs)

    def layer_ran(self, module: nn.Module, args: Any, output: Any) -> None:
        self.calls[id(module)] += 1
        # BatchNorm normalises dimension 1, which of a linear layer's output is its features only in two dimensions
        if args and isinstance(output, Tensor) and (output.dim() == 2 or not isinstance(module, nn.Linear)):
            self.outputs[id(output)], self.given[id(module)] = (module, output), args[0]
            self.uses[id(output)] = 0

    def norm_runs(self, module: nn.Module, args: Any) -> None:
        self.calls[id(module)] += 1
        if args and id(args[0]) in self.outputs:
            self.pairs.append((self.outputs[id(args[0])][0], module, id(args[0])))


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors_in(item)
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))


def _foldable_pairs(twin: nn.Module, x: Tensor) -> list[tuple[nn.Module, nn.Module, Tensor]]:
    """(layer, BatchNorm, the layer's input) where its output goes into the norm alone, seen in one forward."""
    seen = _watched(twin, x)
    once = [
        (layer, norm)
        for layer, norm, output in seen.pairs
        if seen.uses[output] == seen.calls[id(layer)] == seen.calls[id(norm)] == 1
    ]
    shared = _shared_parameters(twin)
    alone = [pair for pair in once if not any(id(p) in shared for p in pair[0].parameters(recurse=False))]
    return [(layer, norm, seen.given[id(layer)]) for layer, norm in alone]


def _watched(twin: nn.Module, x: Tensor) -> _Watch:
    watch = _Watch()
    with ExitStack() as stack:
        for module in filter(is_as_written, list(twin.modules())):
            if isinstance(module, _FOLDABLE):
                stack.callback(module.register_forward_hook(watch.layer_ran).remove)
            elif type(module) in _NORMS and module.running_mean is not None:
                stack.callback(module.register_forward_pre_hook(watch.norm_runs).remove)
        with torch.no_grad(), watch:
            outputs = twin(x.clone())
    known = isinstance(outputs, (list, tuple, dict, Tensor))
    watch.used(outputs if known else getattr(outputs, "__dict__", {}))
    return watch


def is_as_written(module: nn.Module) -> bool:
    """Whether a call is the class's own forward with the tensors that stand in the module.

    Not so with hooks or another forward put on it, nor where its weight is computed: pruned, normed, parametrised.
    """
    changed = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    return not changed and "weight" in module._parameters


def _shared_parameters(module: nn.Module) -> set[int]:
    seen: set[int] = set()
    shared: set[int] = set()
    for part in module.modules():
        for tensor in part._parameters.values():
            if tensor is not None:
                (shared if id(tensor) in seen else seen).add(id(tensor))
    return shared


@torch.no_grad()
def _fold(linear: Any, norm: Any, given: Tensor) -> None:
    """The norm becomes an identity. A subclass of a layer may do anything with its weights: there, only if that holds.

    Both modules are the twin's, so their tensors may be replaced, and even the norm's class: all references follow.
    """
    weight, bias = _folded(linear, norm)
    before = dict(linear._parameters)
    expected = None if type(linear) in _FOLDABLE else norm(linear(given))
    linear._parameters.update(weight=weight, bias=bias)
    if expected is not None and not _close(linear(given), expected):
        linear._parameters.update(before)
        return
    norm._parameters.clear()
    norm._buffers.clear()
    norm.__class__ = nn.Identity


def _folded(linear: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """W·s, (b − μ)·s + β with s = γ/√(σ² + ε), which is made in float64 where there is one."""
    scale = (wide(norm.running_var) + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * wide(norm.weight)
    bias = -wide(norm.running_mean) if linear.bias is None else wide(linear.bias) - wide(norm.running_mean)
    bias = bias * scale if norm.bias is None else bias * scale + wide(norm.bias)
    product = torch.promote_types(linear.weight.dtype, torch.float32)
    weight = linear.weight.to(product) * scale.to(product).reshape(-1, *[1] * (linear.weight.dim() - 1))
    return weight.to(linear.weight.dtype), bias.to(linear.weight.dtype)


def _close(found: Tensor, expected: Tensor) -> bool:
    """To a thousand roundings of the largest value."""
    allowed = 1000 * torch.finfo(expected.dtype).eps * expected.abs().amax()
    return found.shape == expected.shape and bool((found - expected).abs().amax() <= allowed)
