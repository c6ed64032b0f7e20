"""Controls made from a method's dataclass fields, and the method made from their values.

`describe` says what each field needs as plain data, which `app.drawing` draws; `build` goes back from values to a
frozen method. Nothing here knows a method by name.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import attrib

DRAWABLE: tuple[type, ...] = (bool, int, float, str)


@dataclass(frozen=True)
class Control:
    """One field as a control. kind: "choice", "switch", "whole", "real", "text" or "list".

    optional: an empty control means None. title: the field's name in words.
    """

    name: str
    kind: str
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    advanced: bool = False
    optional: bool = False

    @property
    def title(self) -> str:
        return self.name.removeprefix("n_").replace("_", " ").capitalize()

    @property
    def shown(self) -> Any:
        """The default as its control shows it: lists as text with commas, None as empty."""
        if self.kind == "list":
            return ", ".join(map(str, self.default or ()))
        return "" if self.default is None and self.kind in ("text", "choice") else self.default


def describe(method: type, kind: str) -> list[Control]:
    """The controls of a method class for one kind of input, "image" or "text".

    Left out are the fields that mean nothing for it, and those that no control can hold (a tensor, another method).
    """
    hints = typing.get_type_hints(method)
    found = (_control(field, hints[field.name], kind) for field in dataclasses.fields(method))
    return [control for control in found if control is not None]


def build(method: type, kind: str, values: Mapping[str, Any]) -> Any:
    """A method with the given values of its controls; what is not given keeps its default.

    Raises attrib.InputError naming the field and what it may be.
    """
    known = {control.name: control for control in describe(method, kind)}
    for name in values:
        if name not in known:
            raise attrib.UnknownName(f"setting of {_called(method)}", name, known)
    read = {name: _read(method, known[name], value) for name, value in values.items()}
    try:
        return method(**read)
    except (TypeError, ValueError) as error:
        if isinstance(error, attrib.AttribError):
            raise
        raise attrib.InputError(f"{_called(method)}: {error}") from error


def _control(field: dataclasses.Field[Any], hint: Any, wanted: str) -> Control | None:
    meta = field.metadata
    own = meta["of_kind"].get(wanted)
    if own is None:
        return None
    kinds, optional = _alternatives(hint)
    choices = tuple(own["choices"] or ()) or _literals(kinds)
    default = field.default if field.default is not dataclasses.MISSING else None
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    kind = "choice" if choices else _kind(kinds, default)
    if kind is None:
        return None
    return Control(
        field.name, kind, default, own["help"], meta["low"], meta["high"], choices, meta["advanced"], optional,
    )  # fmt: skip


def _kind(kinds: Sequence[Any], default: Any) -> str | None:
    names = {typing.get_origin(k) or k for k in kinds}
    for python, kind in ((bool, "switch"), (float, "real"), (int, "whole")):
        if python in names and (default is None or isinstance(default, (bool, int, float))):
            return kind
    if names & {tuple, list, Sequence}:
        return "list"
    return "text" if str in names else None


def _alternatives(hint: Any) -> tuple[list[Any], bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = typing.get_args(hint)
        return [p for p in parts if p is not types.NoneType], types.NoneType in parts
    return [hint], False


def _literals(kinds: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(v) for k in kinds if typing.get_origin(k) is typing.Literal for v in typing.get_args(k))


def _read(method: type, control: Control, value: Any) -> Any:
    if value is None or value == "":
        if control.optional or control.default is None:
            return None
        return control.default
    reader = _READERS[control.kind]
    try:
        read = reader(value)
    except (TypeError, ValueError, OverflowError):
        raise attrib.InputError(f"{_place(method, control)}: {value!r} is not {_EXPECTED[control.kind]}") from None
    if control.choices and read not in control.choices:
        raise attrib.UnknownName(f"choice of {_place(method, control)}", read, control.choices)
    if control.kind in ("whole", "real"):
        _check_range(method, control, read)
    return read


def _check_range(method: type, control: Control, value: float) -> None:
    if value != value:
        raise attrib.InputError(f"{_place(method, control)}: not a number")
    if control.low is not None and value < control.low:
        raise attrib.InputError(f"{_place(method, control)}: {value} is below {control.low}")
    if control.high is not None and value > control.high:
        raise attrib.InputError(f"{_place(method, control)}: {value} is above {control.high}")


def _whole(value: Any) -> int:
    if float(value) != int(float(value)):
        raise ValueError(value)
    return int(float(value))


def _switch(value: Any) -> bool:
    if isinstance(value, str):
        if value.strip().lower() not in ("true", "false"):
            raise ValueError(value)
        return value.strip().lower() == "true"
    return bool(value)


def _list(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _place(method: type, control: Control) -> str:
    return f"{_called(method)}, {control.title.lower()}"


def _called(method: type) -> str:
    return str(getattr(method, "name", method.__name__))


_READERS: dict[str, Any] = {
    "choice": str, "switch": _switch, "whole": _whole, "real": float, "text": str, "list": _list,
}  # fmt: skip
_EXPECTED = {
    "choice": "a choice", "switch": "true or false", "whole": "a whole number", "real": "a number",
    "text": "text", "list": "a list of names",
}  # fmt: skip
