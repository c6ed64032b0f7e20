"""z-box where the first layer does not see the picture as the bounds are laid out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attrib
from attrib.methods.bounds import UNKNOWN
from attrib.rules.first import ZBox
from attrib.rules.table import Rules

LOW = torch.tensor([-2.1, -2.2, -2.3], dtype=torch.float64).view(3, 1, 1)
SEEN: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
    "patches": (nn.Linear(48, 8), lambda x: F.unfold(x, 4, stride=4).transpose(1, 2)),
    "all at once": (nn.Linear(768, 8), lambda x: x.flatten(1)),
    "channels last": (nn.Linear(3, 8), lambda x: x.permute(0, 2, 3, 1)),
    "a volume": (nn.Conv3d(3, 8, (1, 3, 3)), lambda x: x[:, :, None]),
}


class Net(nn.Module):
    def __init__(self, first: nn.Module, seen: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.head, self.seen = first, nn.Linear(8, 5), seen

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.first(self.seen(x)).relu())

    def after(self, y: Tensor) -> Tensor:
        if y.dim() > 2:
            y = y.flatten(2).mean(2) if isinstance(self.first, nn.Conv3d) else y.flatten(1, -2).mean(1)
        out: Tensor = self.head(y)
        return out


def z_box(first: Any, x: Tensor, low: Tensor, high: Tensor, above: Tensor) -> Tensor:
    """R = x⊙WᵀS − l⊙W⁺ᵀS − h⊙W⁻ᵀS, S = R/(Wx − W⁺l − W⁻h), with W written out as one matrix; one sample."""
    zero = first(torch.zeros_like(x)).flatten()
    units = torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape[1:])
    w = torch.stack([first(unit[None]).flatten() - zero for unit in units], 1)
    x, low, high, up, down = x.flatten(), low.flatten(), high.flatten(), w.clamp_min(0), w.clamp_max(0)
    s = above.flatten() / (w @ x - up @ low - down @ high)
    return x * (w.T @ s) - low * (up.T @ s) - high * (down.T @ s)


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("bounds", [{"low": LOW, "high": -LOW}, {"low": LOW[None], "high": 2.3}], ids=["three", "four"])
def test_bounds_go_with_the_pixels(bounds: dict[str, Any], name: str) -> None:
    """By hand: what falls on the first layer's input, in patches or not, back to the picture as R/x."""
    torch.manual_seed(0)
    net = Net(*SEEN[name]).double().eval()
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64).clamp(-2, 2)
    method = attrib.LRP(preset="epsilon_gamma_box", stabiliser=0.0, **bounds)
    found = attrib.explain(attrib.wrap(net), x, method, target=1)
    seen = net.seen(x).requires_grad_()
    above = net.first(seen)
    (gradient,) = torch.autograd.grad(net.after(above.relu())[0, 1], above)
    ends = [net.seen(torch.as_tensor(bounds[key], dtype=x.dtype).expand_as(x)) for key in ("low", "high")]
    relevance = z_box(net.first, seen.detach(), *ends, gradient * above).view_as(seen)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net.seen(leaf), leaf, (relevance / seen).detach())
    assert found.delta is not None and float(found.delta.abs().max()) < 1e-12 and UNKNOWN not in found.notes
    torch.testing.assert_close(found.values, x * expected)


@pytest.mark.parametrize("low", [float("nan"), "black", torch.zeros(2), torch.zeros(5, 3, 1, 1), object()])
def test_what_is_no_bound_is_refused(low: Any) -> None:
    net = Net(*SEEN["all at once"]).double().eval()
    with pytest.raises(attrib.InputError, match="bound of inputs"):
        attrib.explain(attrib.wrap(net), torch.zeros(2, 3, 16, 16), attrib.LRP(low=low, high=1.0), target=1)


MEAN = torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64).view(3, 1, 1)
STD = torch.tensor([0.2, 0.25, 0.3], dtype=torch.float64).view(3, 1, 1)
RANGE = {"low": 0.0, "high": 1.0}


class Prepared(nn.Module):
    """A small network that does something to pixels from 0 to 1 before its first convolution."""

    def __init__(self, prepare: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)).double().eval()
        self.prepare = prepare

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(self.prepare(x))
        return out


def pixels(samples: int = 2) -> Tensor:
    return torch.rand(samples, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


MONOTONE: dict[str, Callable[[Tensor], Tensor]] = {
    "normalised": lambda x: (x - MEAN) / STD,
    "negated": lambda x: (1 - x).sub_(MEAN).div_(STD),
    "other channels first": lambda x: ((x - MEAN) / STD).flip(1),
    "in place": lambda x: x.mul_(2.0).sub_(1.0),
    "a branch": lambda x: (x / 255 if x.max() > 10 else x) * 2 - 1,
    "gamma": lambda x: x**2.2 - 0.5,
}


@pytest.mark.parametrize("name", MONOTONE)
def test_bounds_are_normalised_as_the_pixels_are(name: str) -> None:
    """As the network behind it explains pixels that were prepared before, with bounds that were, too; and by hand."""
    prepare, x = MONOTONE[name], pixels()
    net = Prepared(prepare)
    method = attrib.LRP(preset="epsilon_gamma_box", stabiliser=0.0, **RANGE)
    found = attrib.explain(attrib.wrap(net), x, method, target=1)
    seen = prepare(x.clone())
    ends = [prepare(torch.full_like(x[:1], end)) for end in (0.0, 1.0)]
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    behind = attrib.LRP(preset="epsilon_gamma_box", stabiliser=0.0, low=low, high=high)
    torch.testing.assert_close(found.values, attrib.explain(attrib.wrap(net.inner), seen, behind, target=1).values)
    above = net.inner[0](seen).requires_grad_()
    (gradient,) = torch.autograd.grad(net.inner[1:](above)[:, 1].sum(), above)
    for one, values, relevance in zip(seen, found.values, gradient * above, strict=True):
        by_hand = z_box(net.inner[0], one[None], low, high, relevance)
        torch.testing.assert_close(values.flatten(), by_hand)
    assert found.delta is not None and float(found.delta.abs().max()) < 1e-10 and UNKNOWN not in found.notes


COLOURS = torch.tensor([[0.3, 0.6, 0.1], [-0.2, -0.3, 0.5], [0.5, -0.4, -0.1]], dtype=torch.float64)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True),
        lambda x: torch.einsum("bchw,dc->bdhw", x, COLOURS),
        lambda x: (x - 0.5).abs(),
    ],
    ids=["of each picture", "colours mixed", "folded"],
)
def test_where_nobody_knows_the_bounds_it_is_said(prepare: Callable[[Tensor], Tensor]) -> None:
    net, x = Prepared(prepare), pixels()
    method = attrib.LRP(preset="epsilon_gamma_box", **RANGE)
    found = attrib.explain(attrib.wrap(net), x, method, target=1)
    assert UNKNOWN in found.notes
    for one, values in zip(x, found.values, strict=True):
        seen = prepare(one[None])
        own = attrib.LRP(preset="epsilon_gamma_box", low=seen.min(), high=seen.max())
        alone = attrib.explain(attrib.wrap(net.inner), seen, own, target=1)
        assert alone.ledger is not None and found.ledger is not None
        torch.testing.assert_close(attrib.explain(attrib.wrap(net), one[None], method, target=1).values[0], values)
        torch.testing.assert_close(values[None], alone.values)


def test_a_rule_of_the_callers_own_takes_bounds_of_the_input() -> None:
    net, x = Prepared(MONOTONE["normalised"]), pixels()
    low, high = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    table = Rules({"first": ZBox(low, high)})
    own = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset="epsilon", rules=table), target=1)
    inside = Rules().inside("inner*", table)
    scoped = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset="epsilon", rules=inside), target=1)
    behind = Rules({"first": ZBox((low - MEAN) / STD, (high - MEAN) / STD)})
    method = attrib.LRP(preset="epsilon", rules=behind)
    expected = attrib.explain(attrib.wrap(net.inner), (x - MEAN) / STD, method, target=1).values
    torch.testing.assert_close(own.values, expected)
    torch.testing.assert_close(scoped.values, expected)
