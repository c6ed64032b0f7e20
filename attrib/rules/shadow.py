"""A structural twin of a model: its own module objects, the very same weights.

The twin is in eval mode, its parameters are detached views, its buffers copies, and hooks may be put on it: nothing
that happens to the twin can be seen on the model, so any number of threads may explain one model at once.
Building one costs about a millisecond and no memory but for buffers.
"""

from __future__ import annotations

import functools
import types
from collections import OrderedDict
from collections.abc import Callable
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
    """The twin of `model`. Weights are shared; every parameter becomes a detached view of itself."""
    modules = list(model.modules())
    mirror = Mirror({id(module): object.__new__(type(module)) for module in modules})
    for module in modules:
        _fill(mirror.twins[id(module)], module, mirror)
    return mirror.twins[id(model)]


def failing_module(error: BaseException, twin: nn.Module) -> str | None:
    """The path of the innermost module of `twin` that was running when `error` was raised; None if none was."""
    paths = {id(module): path for path, module in twin.named_modules()}
    found = None
    traceback = error.__traceback__
    while traceback is not None:
        found = paths.get(id(traceback.tb_frame.f_locals.get("self")), found)
        traceback = traceback.tb_next
    return found


def _fill(twin: nn.Module, module: nn.Module, mirror: Mirror) -> None:
    state = {name: mirror.of(value) for name, value in module.__dict__.items() if name not in _OWN}
    state["_parameters"] = {k: mirror.of(p) for k, p in module._parameters.items()}
    state["_buffers"] = {k: mirror.of(b) for k, b in module._buffers.items()}
    state["_modules"] = {k: None if m is None else mirror.twins[id(m)] for k, m in module._modules.items()}
    state["_non_persistent_buffers_set"] = set(module._non_persistent_buffers_set)
    for name in _HOOKS:
        hooks = module.__dict__.get(name)
        state[name] = OrderedDict(mirror.of(hooks)) if hooks else OrderedDict()
    state["training"] = False
    if isinstance(module, nn.RNNBase) and any(p is not None and p.is_cuda for p in module._parameters.values()):
        # cuDNN gives recurrent layers a gradient in training mode only, which without dropout computes the same
        state |= {"training": True, "dropout": 0.0}
    twin.__dict__.update(state)
    for name in mirror.slots(type(module)):
        if hasattr(module, name):
            object.__setattr__(twin, name, mirror.of(getattr(module, name)))


_TABLES = frozenset({"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})
_OWN = frozenset(_HOOKS) | _TABLES | {"training", "_compiled_call_impl"}
_PLAIN = frozenset({bool, int, float, str, type(None), torch.Size, torch.dtype})


def copied(tensor: Tensor) -> Tensor:
    """A copy that knows its original: see `WeightCache`."""
    copy = tensor.detach().clone()
    copy._attrib_original = (tensor.detach(), copy._version)  # type: ignore[attr-defined]
    return copy


class Mirror:
    """What a module refers to, as its twin refers to it: twins for modules, detached views for parameters.

    Functions that hold modules (closures, partial ones, defaults) are made again with their twins, so that a forward
    which a library has put on a module runs on the twin. Objects of other classes are shared.
    """

    def __init__(self, twins: dict[int, nn.Module]) -> None:
        self.twins = twins
        self._tensors: dict[int, Tensor] = {}
        self._functions: dict[int, Any] = {}
        self._slots: dict[type, tuple[str, ...]] = {}

    def slots(self, cls: type) -> tuple[str, ...]:
        """What instances of `cls` hold outside their __dict__."""
        if cls not in self._slots:
            names = (name for base in cls.__mro__ for name in base.__dict__.get("__slots__", ()))
            self._slots[cls] = tuple(name for name in names if name not in ("__dict__", "__weakref__"))
        return self._slots[cls]

    def of(self, value: Any) -> Any:
        """`value` for the twin; itself where nothing in it is mirrored."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if isinstance(value, nn.Module):
            return self.twins.get(id(value), value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if kind in (list, tuple):
            return kind(self.of(v) for v in value)
        if kind in (dict, OrderedDict):
            return kind((k, self.of(v)) for k, v in value.items())
        if kind in _MADE_AGAIN:
            if id(value) not in self._functions:
                self._functions[id(value)] = value  # for a function that holds itself
                self._functions[id(value)] = _MADE_AGAIN[kind](self, value)
            return self._functions[id(value)]
        return value

    def _tensor(self, tensor: Tensor) -> Tensor:
        """The same one wherever the tensor stands: a detached view of a weight, of others a copy.

        For a forward may write into those, in eval mode too: BatchNorm that is told to train, call counters, memories.
        """
        if id(tensor) not in self._tensors:
            weighs = tensor.requires_grad or isinstance(tensor, nn.Parameter)
            # no graph may hold one made in inference mode
            self._tensors[id(tensor)] = tensor.detach() if weighs and not tensor.is_inference() else copied(tensor)
        return self._tensors[id(tensor)]

    def lent(self, value: Any) -> Any:
        """`of`, but of what a function outside the model refers to: what a hook writes into stays the caller's."""
        if type(value) is Tensor and not value.requires_grad:
            return value
        if type(value) in (list, tuple, dict, OrderedDict):
            inside = value.values() if isinstance(value, dict) else value
            return self.of(value) if any(id(part) in self.twins for part in inside) else value
        return self.of(value)


def _method(mirror: Mirror, method: types.MethodType) -> Any:
    owner, function = mirror.of(method.__self__), mirror.of(method.__func__)
    same = owner is method.__self__ and function is method.__func__
    return method if same else types.MethodType(function, owner)


def _partial(mirror: Mirror, partial: functools.partial[Any]) -> Any:
    parts = (partial.func, *partial.args, *partial.keywords.values())
    mirrored = [mirror.lent(part) for part in parts]
    if all(new is old for new, old in zip(mirrored, parts, strict=True)):
        return partial
    function, args = mirrored[0], mirrored[1 : 1 + len(partial.args)]
    keywords = dict(zip(partial.keywords, mirrored[1 + len(partial.args) :], strict=True))
    made = functools.partial(function, *args, **keywords)
    made.__dict__.update(partial.__dict__)
    return made


def _function(mirror: Mirror, function: types.FunctionType) -> Any:
    cells = tuple(_cell(mirror, cell) for cell in function.__closure__ or ())
    defaults = tuple(map(mirror.lent, function.__defaults__ or ()))
    same = all(new is old for new, old in zip(cells, function.__closure__ or (), strict=True))
    if same and all(new is old for new, old in zip(defaults, function.__defaults__ or (), strict=True)):
        return function
    made = types.FunctionType(function.__code__, function.__globals__, function.__name__, defaults or None, cells)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__dict__.update(function.__dict__)
    return made


def _cell(mirror: Mirror, cell: types.CellType) -> types.CellType:
    try:
        value = cell.cell_contents
    except ValueError:  # not filled yet
        return cell
    mirrored = mirror.lent(value)
    return cell if mirrored is value else types.CellType(mirrored)


_MADE_AGAIN: dict[type, Callable[[Mirror, Any], Any]] = {
    types.MethodType: _method,
    types.FunctionType: _function,
    functools.partial: _partial,
}
