"""What no mode can see, functions compiled by torch.jit.script and stray weights, is named however it is reached."""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import attrib


def _twice(y: Tensor) -> Tensor:
    return torch.tanh(y) * 2


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    scripted: Callable[[Tensor], Tensor] = torch.jit.script(_twice)

holder = types.SimpleNamespace(by_name=scripted, among=[{"others": scripted}])


def by_default(y: Tensor, function: Callable[[Tensor], Tensor] = scripted) -> Tensor:
    return function(y)


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": scripted,
    "helper": lambda y: scripted(y),
    "attribute": lambda y: holder.by_name(y),
    "in a list": lambda y: holder.among[0]["others"](y),
    "partial": functools.partial(scripted),
    "default": by_default,
}


class Net(nn.Module):
    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head, self.middle = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), middle

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.middle(self.conv(x)).mean((2, 3)))
        return out


def asked(middle: Callable[[Tensor], Tensor], method: str, strict: bool = False) -> attrib.Attribution:
    model, x = attrib.wrap(Net(middle).double().eval()), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    return attrib.explain(model, x, method, target=1, strict=strict)


@pytest.mark.parametrize("method", ["lrp", "deeplift", "guided_backprop"])
@pytest.mark.parametrize("way", WAYS)
def test_a_scripted_function_is_named(way: str, method: str) -> None:
    found = asked(WAYS[way], method)
    assert found.coverage is not None and any("torch.jit.script" in name for name in found.coverage.uncovered)


def test_it_is_refused_when_asked_to_be_strict() -> None:
    with pytest.raises(attrib.UncoveredOperation, match=r"torch\.jit\.script"):
        asked(scripted, "lrp", strict=True)


def test_a_weight_that_no_module_holds_is_named() -> None:
    stray = types.SimpleNamespace(gain=nn.Parameter(torch.ones((), dtype=torch.float64)))
    assert asked(lambda y: y * stray.gain, "saliency").coverage is None
    with pytest.raises(attrib.UncoveredOperation, match="a weight outside"):
        asked(lambda y: y * stray.gain, "lrp", strict=True)


def test_others_are_not() -> None:
    mapped = torch.vmap(lambda y: y.movedim(0, 2) * 2)
    for coverage in (asked(torch.relu, "lrp").coverage, asked(lambda y: mapped(y).movedim(3, 1), "lrp").coverage):
        assert coverage is not None and not any("script" in name for name in coverage.uncovered)
