"""Operations in place on slices: rules, bookings and coverage see them; and models that cut their own gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import attrib


class Net(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.change = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5), change

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.change(self.conv(x) * 1).mean((2, 3)))
        return answer


def shifted(y: Tensor) -> Tensor:
    y[:, 4:].mul_(0.5).add_(0.1)
    y.transpose(1, 2)[:, 0].sub_(0.3)
    return y


def gated(y: Tensor) -> Tensor:
    y[:, 4:].mul_(y[:, :4].sigmoid())
    y[:, 1] /= y[:, 2].exp()
    return y


def rectified(y: Tensor) -> Tensor:
    y[:, :4] = y[:, :4].relu()
    y[:, 4:] = y[:, 4:].tanh()
    y[:, 2].clamp_(-0.1, 0.1)
    return y


def filled(y: Tensor) -> Tensor:
    z = torch.zeros_like(y)
    z[:, :4].add_(y[:, :4], alpha=2)
    z[:, 4:] += y[:, 4:]
    return z


@pytest.mark.parametrize("change", [shifted, gated, rectified, filled])
def test_changes_of_slices_are_accounted_for(change: Callable[[Tensor], Tensor]) -> None:
    net, x = Net(change).double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    result = attrib.explain(attrib.wrap(net), x, attrib.LRP("epsilon"), 1, strict=True)
    assert result.ledger is not None and result.delta is not None and result.delta.abs().max() < 1e-9
    lifted = attrib.explain(attrib.wrap(net), x, "deeplift", 1, strict=True)
    assert lifted.delta is not None and lifted.delta.abs().max() < 1e-9
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(attrib.explain(attrib.wrap(net), x, "saliency", 1).values, gradient.abs())


def waved(y: Tensor) -> Tensor:
    y[:, 0].sin_()
    return y


def test_what_no_rule_covers_is_told_on_a_slice_too() -> None:
    model, x = attrib.wrap(Net(waved).double()), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    result = attrib.explain(model, x, "lrp", 1)
    assert result.coverage is not None and "sin in the model" in result.coverage.uncovered
    with pytest.raises(attrib.UncoveredOperation, match="'sin'"):
        attrib.explain(model, x, "lrp", 1, strict=True)


@pytest.mark.parametrize("name", ["saliency", "lrp", "deeplift"])
def test_a_model_that_cuts_its_gradient_is_told_so(name: str) -> None:
    with pytest.raises(attrib.UnsupportedModel, match=r"no gradient at .*occlusion"):
        attrib.explain(attrib.wrap(Net(torch.no_grad()(lambda y: y * 2))), torch.randn(1, 3, 8, 8), name, 1)


class WithLoss(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        logits = super().forward(x)
        return logits.logsumexp(1).mean(), logits


@pytest.mark.parametrize("name", ["saliency", "lrp", "deeplift", "grad_cam", "occlusion"])
def test_a_loss_in_front_of_the_logits_is_passed_over(name: str) -> None:
    x = torch.randn(2, 3, 16, 16)
    with_loss, plain = (attrib.wrap(kind(torch.relu)) for kind in (WithLoss, Net))
    first, second = (attrib.explain(model, x, name, 1) for model in (with_loss, plain))
    torch.testing.assert_close(first.values, second.values)
