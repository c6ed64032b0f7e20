"""DeepLIFT through choices by value: exact where baseline and input choose alike, named where they do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import attrib


class Net(nn.Module):
    def __init__(self, choose: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.choose = choose

    def forward(self, x: Tensor) -> Tensor:
        y = self.choose(self.conv(x).relu())
        out: Tensor = self.head(y.flatten(2).mean(2))
        return out


def written(y: Tensor) -> Tensor:
    y = y.clone()
    y[y > 0.3] = 0.1
    return y


def by_row(y: Tensor) -> Tensor:
    flat = y.flatten(2)
    return y + flat[torch.arange(len(y)), :, flat.sum(1).argmax(1)][:, :, None, None]


CHOICES: dict[str, Callable[[Tensor], Tensor]] = {
    "sort": lambda y: y.flatten(2).sort(-1, descending=True)[0][..., :9],
    "topk": lambda y: y.flatten(2).topk(3)[0],
    "where": lambda y: torch.where(y > 0.3, y, 0.1 * y),
    "where ": lambda y: torch.where(y.detach() > 0.3, y, 0.1 * y),
    "mul": lambda y: y * (y > 0.3).to(y.dtype),
    "gather": lambda y: y.gather(1, y.mean((2, 3)).argsort(1)[:, :, None, None].expand_as(y)),
    "getitem": by_row,
    "setitem": written,
}


@pytest.mark.parametrize("name", CHOICES)
def test_another_choice_is_named(name: str) -> None:
    torch.manual_seed(0)
    model, x = attrib.wrap(Net(CHOICES[name]).double().eval()), torch.randn(3, 3, 8, 8, dtype=torch.float64)
    found = attrib.explain(model, x, "deeplift", target=1)
    assert found.coverage is not None and f"{name.strip()} in the model" in found.coverage.uncovered
    with pytest.raises(attrib.UncoveredOperation, match=name.strip()):
        attrib.explain(model, x, "deeplift", target=1, strict=True)


@pytest.mark.parametrize("name", CHOICES)
def test_the_same_choice_is_exact(name: str) -> None:
    torch.manual_seed(0)
    model, x = attrib.wrap(Net(CHOICES[name]).double().eval()), torch.randn(3, 3, 8, 8, dtype=torch.float64)
    method = attrib.DeepLift(baseline=x * (1 - 1e-6))
    found = attrib.explain(model, x, method, target=1, strict=True)
    assert found.delta is not None and float((found.delta / found.values.flatten(1).sum(1)).abs().max()) < 1e-6


class Departing(nn.Module):
    """More positions, and a product of two signals there, where the input is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu().flatten(2)
        y = y[..., : 5 if bool((y > 0.5).any()) else 4]
        out: Tensor = self.head((y * y.flip(2)).mean(2))
        return out


def test_another_path_is_told_also_by_an_operator() -> None:
    torch.manual_seed(0)
    model = attrib.wrap(Departing().double().eval())
    with pytest.raises(attrib.UnsupportedModel, match="another path on the baseline"):
        attrib.explain(model, torch.randn(1, 3, 8, 8, dtype=torch.float64), "deeplift", target=1)


class Sub(Tensor):
    """A subclass, which no mode sees tensors become."""


def test_a_tensor_subclass_is_followed() -> None:
    torch.manual_seed(0)
    net = Net(lambda y: torch.tanh(y.as_subclass(Sub) * 2 - 0.4).as_subclass(Tensor)).double().eval()
    plain = Net(lambda y: torch.tanh(y * 2 - 0.4)).double().eval()
    plain.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found, wanted = (attrib.explain(attrib.wrap(n), x, "deeplift", target=1) for n in (net, plain))
    torch.testing.assert_close(found.values, wanted.values)
