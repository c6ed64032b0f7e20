"""What is wrong with a method's settings before it runs: of another kind than their field, or beyond any machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import Field, fields
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from attrib.errors import InputError
from attrib.methods.base import Method
from attrib.rules.stabiliser import Stabiliser
from attrib.rules.table import Rules

_MOST = 2**63  # a machine's whole numbers end here


def check_settings(method: Any) -> None:
    """Raises InputError naming the first setting that is not what its field holds; bounds are the method's own.

    method: a Method, or another frozen dataclass of settings that has a name.
    """
    for field in fields(method):
        kinds = _kinds_of(field)
        value = getattr(method, field.name)
        if kinds and not any(_KINDS[kind][1](value) for kind in kinds):
            wanted = dict.fromkeys(_KINDS[kind][0] for kind in kinds if kind != "None")
            raise InputError(f"{method.name}: {field.name} = {value!r:.200}: give {' or '.join(wanted)}")
        if field.name == "seed" and value < 0:
            raise InputError(f"{method.name}: seed = {value}: seeds are counted from 0")


def _kinds_of(field: Field[Any]) -> tuple[str, ...]:
    """What a field may hold, as it is annotated; nothing where that is told nowhere here."""
    kinds = tuple(part.strip() for part in str(field.type).replace("Baseline", "str | Tensor").split("|"))
    return kinds if _KINDS.keys() >= set(kinds) else ()


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and abs(int(value)) < _MOST


def _is_finite(value: Any) -> bool:
    if isinstance(value, Integral):
        return _is_whole(value)
    return isinstance(value, Real) and math.isfinite(value)


def _all(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (tuple, list)) and all(map(fits, value))


def _of(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


# of an annotation's part: how it is called, and whether a value is one
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", _is_whole),
    "float": ("a finite number", _is_finite),
    "bool": ("True or False", _of(bool)),
    "str": ("a name", _of(str)),
    "Bias": ("a name", _of(str)),
    "Tensor": ("a tensor", _of(Tensor)),
    "Method": ("a method", _of(Method)),
    "Rules": ("a rule table", _of(Rules)),
    "Stabiliser": ("a Stabiliser", _of(Stabiliser)),
    "tuple[str, ...]": ("a tuple of names", _all(_of(str))),
    "tuple[float, ...]": ("a tuple of finite numbers", _all(_is_finite)),
    "None": ("nothing", _of(type(None))),
}
