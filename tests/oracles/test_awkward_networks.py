"""What an adversarial run over 157 small networks found wrong or silent, kept as tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrib

Middle = Callable[[nn.Module, Tensor], Tensor]


class Awkward(nn.Module):
    """A convolution, ReLU, `middle`, a mean over what is left, and a linear layer."""

    def __init__(self, middle: Middle) -> None:
        super().__init__()
        self.conv, self.head, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5), middle
        self.weight = nn.Parameter(torch.randn(8, 8) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.middle(self, torch.relu(self.conv(x)))
        answer: Tensor = self.head(y.flatten(2).mean(2) if y.dim() > 2 else y)
        return answer


def model(middle: Middle) -> Any:
    torch.manual_seed(0)
    return attrib.wrap(Awkward(middle).double())


def pictures() -> Tensor:
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _assigned(net: nn.Module, y: Tensor) -> Tensor:
    y = y.clone()
    y[:, :3] = 0.8
    return y


def _assigned_in_a_view(net: nn.Module, y: Tensor) -> Tensor:
    y = y.clone()
    y[:, 2:][:, 1] = 0.7
    return y


def _shifted_by_itself(net: nn.Module, y: Tensor) -> Tensor:
    return y * (1 + 0.1 * y.mean((1, 2, 3)))[:, None, None, None]  # a sum of one number for each sample


HALF = torch.arange(8) % 2 == 0
CONSTANTS: dict[str, Middle] = {
    "masked_fill": lambda net, y: y.masked_fill(HALF, 0.7),
    "where": lambda net, y: torch.where(HALF, y, torch.tensor(0.7, dtype=y.dtype)),
    "where by value": lambda net, y: torch.where(y > 0.4, y, 0.9),
    "stack": lambda net, y: torch.stack([y, torch.full_like(y, 0.5)], -1),
    "pad": lambda net, y: F.pad(y, (1, 1, 1, 1), value=0.6),
    "index_fill": lambda net, y: y.flatten(2).index_fill(2, torch.arange(5), 0.7),
    "index_add": lambda net, y: torch.ones_like(y).index_add(3, torch.arange(8), y, alpha=0.5),
    "assigned": _assigned,
    "assigned in a view": _assigned_in_a_view,
    "shifted by itself": _shifted_by_itself,
}


@pytest.mark.parametrize("name", list(CONSTANTS))
def test_constants_put_in_are_in_the_ledger(name: str) -> None:
    result = attrib.explain(model(CONSTANTS[name]), pictures(), attrib.LRP(preset="epsilon"), 2, strict=True)
    assert result.ledger is not None and result.delta is not None
    assert result.delta.abs().max() < 1e-9 * sum(amount.abs().max() for amount in result.ledger.values())


def test_operations_inside_vmap_are_uncovered() -> None:
    """Silently they kept their gradient: guided backpropagation was off by four fifths."""
    made = model(lambda net, y: torch.vmap(lambda v: torch.relu(v @ net.weight))(y.flatten(2).mT).mT)
    for method in (attrib.LRP(), attrib.GuidedBackprop(), attrib.DeepLift()):
        result = attrib.explain(made, pictures(), method, 2)
        assert result.coverage is not None and any(
            "relu inside torch.vmap" in name for name in result.coverage.uncovered
        )
        with pytest.raises(attrib.UncoveredOperation, match=r"inside torch\.vmap"):
            attrib.explain(made, pictures(), method, 2, strict=True)


def test_a_model_that_differentiates_itself_is_not_changed_by_rules() -> None:
    def energy_step(net: nn.Module, y: Tensor) -> Tensor:
        v = y.mean((2, 3))
        v = v if v.requires_grad else v.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad((torch.tanh(v @ net.weight) ** 2).sum(), v, create_graph=True)
        return v - 0.1 * slope

    made = model(energy_step)
    with pytest.raises(attrib.UnsupportedModel, match="differentiates inside its own forward"):
        attrib.explain(made, pictures(), "lrp", 2)
    leaf = pictures().requires_grad_()
    (expected,) = torch.autograd.grad(made.module(leaf)[:, 2].sum(), leaf)
    torch.testing.assert_close(attrib.explain(made, pictures(), "saliency", 2).values, expected.abs())


def test_operators_of_torch_are_the_functions_that_they_are() -> None:
    first = model(lambda net, y: torch.ops.aten.tanh(torch.ops.aten.sub(y, 0.2)))
    second = model(lambda net, y: torch.tanh(y - 0.2))
    for method in (attrib.LRP(), attrib.DeepLift()):
        found = [attrib.explain(m, pictures(), method, 2, strict=True).values for m in (first, second)]
        torch.testing.assert_close(*found)


class Attending(nn.Module):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
        self.attention, self.narrow = nn.MultiheadAttention(8, 2, batch_first=True, **settings), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        keys = self.narrow(tokens) if self.attention.kdim == 4 else tokens
        mixed, weights = self.attention(tokens, keys, keys, average_attn_weights=False)
        answer: Tensor = self.head(mixed.mean(1) + weights.mean((1, 2, 3))[:, None])
        return answer


@pytest.mark.parametrize("settings", [{}, {"kdim": 4, "vdim": 4}])
@pytest.mark.parametrize("preset", ["epsilon", "attn_lrp", "cp_lrp"])
def test_attention_weights_may_be_read(settings: dict[str, Any], preset: str) -> None:
    torch.manual_seed(0)
    net = Attending(**settings).double()
    result = attrib.explain(attrib.wrap(net), pictures(), attrib.LRP(preset=preset), 2, strict=True)
    torch.testing.assert_close(result.score, net(pictures())[:, 2].detach())
    assert result.delta is not None and result.delta.abs().max() < 1e-9


def test_keys_of_its_own_are_uncovered_and_not_a_failure() -> None:
    net = Attending(add_bias_kv=True, add_zero_attn=True).double()
    result = attrib.explain(attrib.wrap(net), pictures(), "lrp", 2)
    assert result.coverage is not None and any("multi_head_attention" in name for name in result.coverage.uncovered)


class TrainingNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, 0.1, self.eps)


class SwitchedToTraining(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        self.train()
        return super().forward(x)


@pytest.mark.parametrize("norm", [TrainingNorm, SwitchedToTraining])
def test_statistics_that_a_model_updates_stay_its_own(norm: type[nn.BatchNorm2d]) -> None:
    layers = (nn.Conv2d(3, 8, 3), norm(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    net = nn.Sequential(*layers).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for method in ("saliency", "lrp", "deeplift", "grad_cam"):
        attrib.explain(attrib.wrap(net), pictures().float(), method, 1)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not net[1].training
