"""Models that write into tensors of their own in every forward: theirs stay as they are, whatever their size."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize, FusedMovingAvgObsFakeQuantize, disable_observer

import attrib
from attrib.apart import NOTES
from attrib.methods.integrated import nodes_and_weights


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.register_buffer("bank", torch.zeros(400_000))  # 1.6 MB
        self.last = torch.zeros(4)
        self.kept = {"all": [torch.zeros(4)]}

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu().mean((2, 3))
        with torch.no_grad():
            bank: Tensor = self.bank  # type: ignore[assignment]
            bank[:4].add_(y.sum(0))
            self.last.copy_(y[0])
            self.kept["all"][0] += 1
        out: Tensor = self.head(y)
        return out


METHODS = ("saliency", "integrated_gradients", "lrp", "deeplift", "grad_cam", "occlusion", "guided_backprop")


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_written_into_the_users_tensors(method: str) -> None:
    torch.manual_seed(0)
    net = Remembering().eval()
    model = attrib.wrap(net)
    x = torch.randn(2, 3, 20, 20)
    attrib.explain(model, x, method, target=1)
    model.predict(x)
    with pytest.raises(attrib.TargetError):
        attrib.explain(model, x, method, target=77)
    held = (net.bank, net.last, net.kept["all"][0])
    assert all(not tensor.any() and tensor._version == 0 for tensor in held if isinstance(tensor, Tensor))


def test_a_hook_still_writes_into_the_callers_tensor() -> None:
    count = torch.zeros(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 18 * 18, 5)).eval()
    net[0].register_forward_hook(lambda module, args, output: count.add_(1) and None)
    attrib.explain(attrib.wrap(net), torch.randn(1, 3, 20, 20), "saliency", target=1)
    assert count > 0


class Kept(nn.Module):
    """Its answer depends on what it was shown before, which `keep` notes."""

    def __init__(self, keep: Callable[[Any, Tensor], Tensor], kept: Callable[[nn.Module], None]) -> None:
        super().__init__()
        self.conv, self.head, self.keep = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), keep
        kept(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        out: Tensor = self.head((y * self.keep(self, y.detach())).mean((2, 3)))
        return out


def in_a_buffer(net: Any, y: Tensor) -> Tensor:
    net.largest.copy_(torch.maximum(net.largest, y.max()))
    return torch.ones(()) / net.largest


def in_a_new_buffer(net: Any, y: Tensor) -> Tensor:
    net.largest = torch.maximum(net.largest, y.max())
    return torch.ones(()) / net.largest


def in_a_number(net: Any, y: Tensor) -> Tensor:
    net.calls += 1
    return torch.tensor(1.0 / net.calls)


def in_a_list(net: Any, y: Tensor) -> Tensor:
    net.means.append(y.mean())
    return 1 + torch.stack(net.means).sum()


def at_first(net: Any, y: Tensor) -> Tensor:
    if not hasattr(net, "first"):
        net.first = y.mean()
    out: Tensor = net.first
    return out


KEEPING: dict[str, Callable[[], nn.Module]] = {
    "buffer": lambda: Kept(in_a_buffer, lambda net: net.register_buffer("largest", torch.tensor(0.01))),
    "new buffer": lambda: Kept(in_a_new_buffer, lambda net: net.register_buffer("largest", torch.tensor(0.01))),
    "number": lambda: Kept(in_a_number, lambda net: setattr(net, "calls", 0)),
    "list": lambda: Kept(in_a_list, lambda net: setattr(net, "means", [torch.tensor(0.5)])),
    "grown": lambda: Kept(at_first, lambda net: None),
    "fused observer": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), FusedMovingAvgObsFakeQuantize(), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(4, 5)
    ),
    "observer": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), FakeQuantize(), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(4, 5)
    ),
}


def fresh_gradient(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    score = copy.deepcopy(net)(leaf)[:, 1]
    return score.detach(), torch.autograd.grad(score.sum(), leaf)[0]


@pytest.mark.parametrize("name", KEEPING)
def test_every_pass_is_given_the_model_as_it_stands(name: str) -> None:
    """By hand: each pass by a copy of its own, one row at a time."""
    torch.manual_seed(0)
    net, x = KEEPING[name]().eval(), torch.randn(2, 3, 8, 8)
    model = attrib.wrap(net)
    before = copy.deepcopy(net.__dict__)
    method = attrib.IntegratedGradients(n_steps=4)
    deeplift = attrib.explain(model, x[:1], "deeplift", target=1)
    found = attrib.explain(model, x, method, target=1)
    nodes, weights = nodes_and_weights("gausslegendre", 4)
    for row, values in zip(x.split(1), found.values, strict=True):
        each = [w * fresh_gradient(net, a * row)[1][0] for a, w in zip(nodes, weights, strict=True)]
        torch.testing.assert_close(values, row[0] * torch.stack(each).sum(0), rtol=1e-4, atol=1e-6)
    scores = torch.cat([fresh_gradient(net, row)[0] for row in x.split(1)])
    near: dict[str, Any] = {
        "rtol": 1e-5,
        "atol": 1e-3 if "observer" in name else 1e-6,
    }  # rounding may take a number to the next level
    torch.testing.assert_close(found.score, scores, **near)
    torch.testing.assert_close(deeplift.score, scores[:1], **near)
    assert NOTES["remembers"] in found.notes
    assert str(before) == str(net.__dict__)


def test_windows_too_and_observers_that_are_switched_off_later() -> None:
    torch.manual_seed(0)
    net, x = KEEPING["observer"]().eval(), torch.randn(1, 3, 8, 8)
    model, method = attrib.wrap(net), attrib.Occlusion(window=4, stride=4)
    for _ in ("observing", "calibrated"):
        found = attrib.explain(model, x, method, target=1)
        score = copy.deepcopy(net)(x)[:, 1].detach()
        for row in range(0, 8, 4):
            for column in range(0, 8, 4):
                hidden = x.clone()
                hidden[..., row : row + 4, column : column + 4] = 0
                drop = (score - copy.deepcopy(net)(hidden)[:, 1].detach()).expand(4, 4)
                torch.testing.assert_close(
                    found.values[0, 0, row : row + 4, column : column + 4], drop, rtol=0, atol=1e-3
                )
        net(x)
        net.get_submodule("2").apply(disable_observer)
