"""Maxima with constants, clamps between tensors, and experts that nothing is sent to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import attrib

Do = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, do: Do) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(8, 5, bias=False)
        self.floor = nn.Parameter(torch.randn(8, 1, 1) * 0.3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)) for _ in range(3))
        self.do = do

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.do(self, self.conv(x)).mean((2, 3)))
        return out


def pictures() -> Tensor:
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


MAXIMA: dict[str, tuple[Do, Do]] = {  # as a network has it, and where a constant won
    "maximum": (lambda net, y: torch.maximum(y, net.floor), lambda net, y: net.floor * (y < net.floor)),
    "the other way": (lambda net, y: torch.max(net.floor, y), lambda net, y: net.floor * (y < net.floor)),
    "minimum": (lambda net, y: y.min(net.floor), lambda net, y: net.floor * (y > net.floor)),
    "clamp": (lambda net, y: y.clamp(min=net.floor), lambda net, y: net.floor * (y < net.floor)),
    "clip in place": (lambda net, y: y.clip_(max=net.floor), lambda net, y: net.floor * (y > net.floor)),
    "between": (
        lambda net, y: y.clamp(net.floor - 0.1, net.floor + 0.1),
        lambda net, y: (net.floor - 0.1) * (y < net.floor - 0.1) + (net.floor + 0.1) * (y > net.floor + 0.1),
    ),
}


@pytest.mark.parametrize("name", MAXIMA)
def test_what_constants_win_is_booked_as_bias(name: str) -> None:
    """Without other biases: relevance is x times the gradient, and the rest of the score is what the constants won."""
    do, won = MAXIMA[name]
    net, x = Net(do).double().eval(), pictures()
    found = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset="gradient"), target=1, strict=True)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    expected = net.head(won(net, net.conv(x)).mean((2, 3)))[:, 1]
    assert found.ledger is not None and found.delta is not None
    torch.testing.assert_close(found.values, x * gradient)
    torch.testing.assert_close(found.ledger["bias"], expected.detach())
    assert float(found.delta.abs().max()) < 1e-12


CLAMPS: dict[str, Do] = {
    "constant": lambda net, y: y.clamp(min=net.floor),
    "part of the signal": lambda net, y: torch.clamp(y, max=y.mean((2, 3), keepdim=True)),
    "both": lambda net, y: torch.clamp(y, -net.floor.abs(), y.mean((2, 3), keepdim=True) + 0.5),
    "in place": lambda net, y: y.clamp_(min=y.mean((2, 3), keepdim=True)),
}


@pytest.mark.parametrize("method", [attrib.LRP(preset="epsilon"), attrib.LRP(preset="attn_lrp"), attrib.DeepLift()])
@pytest.mark.parametrize("name", CLAMPS)
def test_clamps_between_tensors_account_for_everything(name: str, method: attrib.LRP | attrib.DeepLift) -> None:
    net, x = Net(CLAMPS[name]).double().eval(), pictures()
    found = attrib.explain(attrib.wrap(net), x, method, target=1, strict=True)
    assert found.delta is not None and float(found.delta.abs().max()) < 1e-10
    torch.testing.assert_close(found.score, net(x)[:, 1].detach())


def routed(net: Net, y: Tensor) -> Tensor:
    tokens = y.flatten(2).mT.reshape(-1, 8)
    chosen = tokens[:, :2].argmax(1)  # never the third
    out = torch.zeros_like(tokens)
    for number, expert in enumerate(net.experts):
        rows = (chosen == number).nonzero()[:, 0]
        out.index_add_(0, rows, expert(tokens[rows]))
    return out.view(len(y), -1, 8).mT.view_as(y)


@pytest.mark.parametrize("preset", ["epsilon", "epsilon_plus_flat", "epsilon_gamma_box", "attn_lrp"])
def test_an_expert_that_nothing_is_sent_to_takes_nothing(preset: str) -> None:
    net, x = Net(routed).double().eval(), pictures()
    found = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset=preset), target=1, strict=True)
    assert found.delta is not None and float(found.delta.abs().max()) < 1e-9 and bool(found.values.any())
    net.experts[2] = nn.Identity()
    alike = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset=preset), target=1)
    torch.testing.assert_close(found.values, alike.values, rtol=0, atol=0)
