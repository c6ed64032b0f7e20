"""A method from the settings that a text file can hold, and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from attrib.errors import InputError, UnknownName
from attrib.methods.base import Method
from attrib.provenance import plain


def build(table: Mapping[str, type[Method]], name: str, settings: Mapping[str, Any]) -> Method:
    """The method `name` of `table` with these settings. UnknownName, InputError name what does not fit."""
    if name not in table:
        raise UnknownName("method", name, table)
    cls = table[name]
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in settings:
        if key not in known:
            raise UnknownName(f"setting of {name}", key, known)
    return cls(**{key: _checked(name, known[key], hints[key], value) for key, value in settings.items()})


def changed(method: Method) -> dict[str, Any]:
    """The settings of a method that are not its defaults, as JSON and TOML hold them."""
    own = {f.name: (getattr(method, f.name), f.default) for f in dataclasses.fields(method)}  # type: ignore[arg-type]
    return {name: plain(value) for name, (value, default) in own.items() if value is not default and value != default}


def _checked(method: str, field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    value = tuple(value) if isinstance(value, list) else value
    choices, low, high = (field.metadata.get(key) for key in ("choices", "low", "high"))
    wanted = _types(hint)
    fits = not wanted or isinstance(value, tuple(wanted)) or (float in wanted and isinstance(value, int))
    if not fits or (isinstance(value, bool) and bool not in wanted and wanted):
        names = " or ".join(sorted(kind.__name__ for kind in wanted))
        raise InputError(f"{method}.{field.name} = {value!r}: a {names} is needed")
    if isinstance(value, str) and choices and value not in choices:
        raise UnknownName(f"choice for {method}.{field.name}", value, choices)
    if isinstance(value, (int, float)) and ((low is not None and value < low) or (high is not None and value > high)):
        raise InputError(f"{method}.{field.name} = {value}: it must lie from {low} to {high}")
    return value


def _types(hint: Any) -> set[type]:
    """The classes that a type hint admits; empty: anything."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        found = [_types(part) for part in typing.get_args(hint)]
        return set().union(*found) if all(found) else set()
    if origin is typing.Literal:
        return {type(value) for value in typing.get_args(hint)}
    kind = origin or hint
    return {kind} if isinstance(kind, type) else set()
