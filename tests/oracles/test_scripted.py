"""Functions compiled by torch.jit.script inside a model are named, for no mode sees what they do."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import attrib


def _twice(y: Tensor) -> Tensor:
    return torch.tanh(y) * 2


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    scripted = torch.jit.script(_twice)


def helper(y: Tensor) -> Tensor:
    out: Tensor = scripted(y)
    return out


class Global(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.changed(self.conv(x)).mean((2, 3)))
        return out

    def changed(self, y: Tensor) -> Tensor:
        return y


class ByHelper(Global):
    def changed(self, y: Tensor) -> Tensor:
        return helper(y)


@pytest.mark.parametrize("method", ["lrp", "deeplift"])
def test_a_scripted_function_is_named(method: str) -> None:
    model, x = attrib.wrap(ByHelper().double().eval()), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    found = attrib.explain(model, x, method, target=1)
    assert found.coverage is not None and any("_twice" in name for name in found.coverage.uncovered)
    with pytest.raises(attrib.UncoveredOperation, match="_twice"):
        attrib.explain(model, x, method, target=1, strict=True)


def test_others_are_not() -> None:
    model, x = attrib.wrap(Global().double().eval()), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    assert not attrib.explain(model, x, "lrp", target=1, strict=True).coverage.uncovered  # type: ignore[union-attr]
