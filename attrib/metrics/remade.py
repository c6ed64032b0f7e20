"""What a result answers, made again from what it says of itself: its target and its method."""

from __future__ import annotations

from typing import Any

import torch

from attrib.attribution import Attribution
from attrib.binding import BoundTarget
from attrib.errors import InputError
from attrib.methods import METHODS
from attrib.methods.base import Method


def target_of(result: Attribution, given: Any) -> BoundTarget:
    """The target as the result says that it was settled; `given` where it was a function."""
    first = result.target[0]
    if callable(given):
        return BoundTarget("function", function=given)
    if first["kind"] == "function":
        raise InputError("the target was a function, which the result does not hold; give it as target=")
    positive, versus = ([row.get(name) for row in result.target] for name in ("index", "versus"))
    negative = None if versus[0] is None else torch.tensor(versus)
    return BoundTarget(first["kind"], torch.tensor(positive), negative)


def method_of(result: Attribution) -> Method:
    """The method with its settings; InputError where a setting was no plain value."""
    try:
        return _made(result.provenance.method, result.provenance.settings)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{result.method} cannot be made again from the result's settings; give it as method="
        ) from error


def _made(name: str, settings: dict[str, Any]) -> Method:
    given = {key: _restored(value) for key, value in settings.items() if key != "method"}
    return METHODS[name](**given)


def _restored(value: Any) -> Any:
    if isinstance(value, dict) and "method" in value:
        return _made(value["method"], value)
    if isinstance(value, list):
        return tuple(_restored(each) for each in value)
    if isinstance(value, str) and (value.startswith("tensor (") or "(" in value):
        raise ValueError(value)
    return value
