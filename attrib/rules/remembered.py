"""What a model's forward keeps in its own modules: counters, observed ranges, caches.

The first forward of a twin tells where they lie. Brought back before every other, they leave each pass the model as it
stands, whatever was shown to it in between.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attrib.rules.shadow import Mirror

Place = tuple[str, str, str]  # a module's path, "_buffers" or "" for its attributes, and the name
State = dict[Place, tuple[Any, Any]]  # what stands there, held so that nothing else takes its id; what tells of changes

_known: weakref.WeakKeyDictionary[nn.Module, tuple[int, tuple[Place, ...]]] = weakref.WeakKeyDictionary()
_NOT_KEPT = frozenset(nn.Module().__dict__)  # parameters, modules, hooks and what else a module is made of


@contextmanager
def as_it_stands(model: nn.Module, twin: nn.Module) -> Iterator[None]:
    """Around a forward of `twin`, which begins where `model` stands: what others kept on the twin is forgotten."""
    written = sum(_version(buffer) for buffer in model.buffers())  # observers are switched on and off by theirs
    learnt, places = _known.get(model, (-1, ()))
    if learnt == written:
        if places:
            _forget(model, twin, places)
        yield
    else:
        before = _state(twin)
        yield
        after = _state(twin)
        changed = (place for place in before | after if _facts(before, place) != _facts(after, place))
        _known[model] = (written, tuple(changed))


def _forget(model: nn.Module, twin: nn.Module, places: tuple[Place, ...]) -> None:
    parts = dict(twin.named_modules())
    modules = dict(model.named_modules())
    mirror = Mirror({id(module): parts[path] for path, module in modules.items() if path in parts})
    for path, table, name in places:
        if path in parts and path in modules:
            own, given = _table(parts[path], table), _table(modules[path], table)
            own.pop(name, None)
            if name in given:
                own[name] = mirror.of(given[name])


def _table(module: nn.Module, name: str) -> dict[str, Any]:
    table: dict[str, Any] = module.__dict__[name] if name else module.__dict__
    return table


def _state(twin: nn.Module) -> State:
    return {
        (path, table, name): (value, _told(value))
        for path, module in twin.named_modules()
        for table in ("_buffers", "")
        for name, value in _table(module, table).items()
        if name not in _NOT_KEPT
    }


def _facts(state: State, place: Place) -> Any:
    return state[place][1] if place in state else None


def _told(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Told(value)
    if isinstance(value, dict):
        return tuple((key, _told(part)) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_told, value))
    return value if isinstance(value, (bool, int, float, str, type(None))) else id(value)


class _Told:
    """A tensor as it was: fused observers write without counting a change, so that small ones are copied."""

    def __init__(self, tensor: Tensor) -> None:
        self.written = (id(tensor), _version(tensor))
        self.copy = tensor.detach().clone() if tensor.numel() <= _SMALL else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Told) or self.written != other.written:
            return False
        both = self.copy is not None and other.copy is not None
        return not both or torch.equal(self.copy, other.copy)  # type: ignore[arg-type]


_SMALL = 1 << 16  # entries


def _version(tensor: Tensor) -> int:
    """How often it was changed in place; of what was made in inference mode nobody counts that."""
    return 0 if tensor.is_inference() else tensor._version
