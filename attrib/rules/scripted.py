"""Functions compiled by torch.jit.script that a model may call: a mode sees neither them nor what they do."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def scripted_functions(model: nn.Module) -> tuple[str, ...]:
    """The names of those that a module's methods, or a function they refer to by name or closure, mention."""
    found: set[str] = set()
    seen: set[types.CodeType] = set()
    classes = {cls for module in model.modules() for cls in type(module).__mro__}
    holders = (*map(vars, classes), *map(vars, model.modules()))
    waiting = [part for held in holders for part in held.values() if _is_of_the_model(part)]
    while waiting:
        function = waiting.pop()
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        for value in _mentioned(function):
            if isinstance(value, torch.jit.ScriptFunction):
                found.add(str(value.name))
            elif _is_of_the_model(value):
                waiting.append(value)
    return tuple(sorted(found))


def _is_of_the_model(value: Any) -> bool:
    """Whether it is a function of Python's that is none of torch's."""
    return isinstance(value, types.FunctionType) and not (value.__module__ or "torch").startswith("torch.")


def _mentioned(function: types.FunctionType) -> Iterator[Any]:
    for name in function.__code__.co_names:
        yield function.__globals__.get(name)
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
