"""A structural twin of a model: its own module objects, the very same tensors.

The twin is in eval mode, its parameters are detached views, and hooks may be put on it: nothing that
happens to the twin can be seen on the model, so any number of threads may explain one model at once.
Building one costs about a millisecond and no memory for weights.
"""

from __future__ import annotations

import types
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from attrib.errors import OpaqueModel

_HOOKS = tuple(name for name in nn.Module().__dict__ if name.endswith("_hooks") or "_hooks_" in name)


def refuse_opaque(model: nn.Module) -> None:
    """Raise OpaqueModel where the operations of a module cannot be seen."""
    for path, module in model.named_modules():
        in_place = getattr(module, "_compiled_call_impl", None) is not None
        compiled = in_place or type(module).__name__ == "OptimizedModule"
        if isinstance(module, torch.jit.ScriptModule) or compiled:
            kind = "compiled by torch.compile" if compiled else "TorchScript"
            where = f"its part {path!r}" if path else "the model"
            raise OpaqueModel(f"{where} is {kind}, so its operations cannot be seen; give the plain nn.Module instead")


def shadow(model: nn.Module) -> nn.Module:
    """The twin of `model`. Tensors are shared; every parameter becomes a detached view of itself."""
    twins: dict[int, nn.Module] = {}
    views: dict[int, Tensor] = {}
    modules = list(model.modules())
    for module in modules:
        twins[id(module)] = object.__new__(type(module))
    for module in modules:
        _fill(twins[id(module)], module, twins, views)
    return twins[id(model)]


def failing_module(error: BaseException, twin: nn.Module) -> str | None:
    """The path of the innermost module of `twin` that was running when `error` was raised; None if none was."""
    paths = {id(module): path for path, module in twin.named_modules()}
    found = None
    traceback = error.__traceback__
    while traceback is not None:
        found = paths.get(id(traceback.tb_frame.f_locals.get("self")), found)
        traceback = traceback.tb_next
    return found


def _fill(twin: nn.Module, module: nn.Module, twins: dict[int, nn.Module], views: dict[int, Tensor]) -> None:
    state = {name: _mirrored(value, twins, views) for name, value in module.__dict__.items() if name not in _OWN}
    state["_parameters"] = {k: _mirrored(p, twins, views) for k, p in module._parameters.items()}
    state["_buffers"] = {k: _mirrored(b, twins, views) for k, b in module._buffers.items()}
    state["_modules"] = {k: None if m is None else twins[id(m)] for k, m in module._modules.items()}
    state["_non_persistent_buffers_set"] = set(module._non_persistent_buffers_set)
    state |= {name: OrderedDict(module.__dict__.get(name, {})) for name in _HOOKS}
    state["training"] = False
    twin.__dict__.update(state)


_TABLES = frozenset({"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})
_OWN = frozenset(_HOOKS) | _TABLES | {"training", "_compiled_call_impl"}


def _mirrored(value: Any, twins: dict[int, nn.Module], views: dict[int, Tensor]) -> Any:
    """`value` with every module replaced by its twin and every tensor that needs gradients by its view."""
    if isinstance(value, nn.Module):
        return twins.get(id(value), value)
    if isinstance(value, Tensor):
        if not value.requires_grad and not isinstance(value, nn.Parameter):
            return value
        return views.setdefault(id(value), value.detach())
    if isinstance(value, types.MethodType) and id(value.__self__) in twins:
        return types.MethodType(value.__func__, twins[id(value.__self__)])
    if type(value) in (list, tuple):
        return type(value)(_mirrored(v, twins, views) for v in value)
    if type(value) in (dict, OrderedDict):
        return type(value)((k, _mirrored(v, twins, views)) for k, v in value.items())
    return value
