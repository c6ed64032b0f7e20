"""What is wrong with a method's numbers before it runs: text, NaN and fractions where they mean nothing."""

from __future__ import annotations

import math
from dataclasses import Field, fields
from numbers import Integral, Real
from typing import Any

from attrib.errors import InputError
from attrib.methods.base import Method

_NUMBERS = frozenset({"int", "float", "None"})


def check_numbers(method: Method) -> None:
    """Raises InputError naming the first setting that is not the number it has to be; bounds are the method's own."""
    for field in fields(method):  # type: ignore[arg-type]
        expected = _expected(field)
        value = getattr(method, field.name)
        if expected and not _fits(value, expected):
            whole = "a whole number" if "float" not in expected else "a finite number"
            raise InputError(f"{method.name}: {field.name} = {value!r}: give {whole}")


def _expected(field: Field[Any]) -> frozenset[str]:
    """The kinds of number that a field may hold, as it is annotated; nothing where it may hold something else."""
    kinds = frozenset(part.strip() for part in str(field.type).split("|"))
    return kinds if kinds <= _NUMBERS else frozenset()


def _fits(value: Any, expected: frozenset[str]) -> bool:
    if value is None:
        return "None" in expected
    if isinstance(value, bool) or not isinstance(value, Real if "float" in expected else Integral):
        return False
    return math.isfinite(value)
