"""What is said about settings that make no sense, whatever the method."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import attrib

MODEL = attrib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)))
NUMBERS = [
    (name, field.name)
    for name, method in attrib.METHODS.items()
    for field in dataclasses.fields(method)
    if field.type in ("int", "float", "float | None")
]


@pytest.mark.parametrize("value", ["9", float("nan"), True, [3]])
@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_a_number_that_is_none_is_named(name: str, setting: str, value: object) -> None:
    method = attrib.METHODS[name](**{setting: value})
    with pytest.raises(attrib.InputError, match=f"{name}: {setting} = "):
        attrib.explain(MODEL, torch.ones(1, 3, 2, 2), method)


@pytest.mark.parametrize(
    ("given", "words"), [(attrib.Saliency, r"Saliency\(\)"), (3, "not int"), (["saliency"], "not list")]
)
def test_what_is_no_method_is_told_what_would_be_one(given: object, words: str) -> None:
    with pytest.raises(attrib.InputError, match=words):
        attrib.explain(MODEL, torch.ones(1, 3, 2, 2), given)
