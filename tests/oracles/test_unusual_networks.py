"""Networks nobody had in mind: recurrent ones, einsum attention, spelled-out norms, L2 pooling, Fourier features.

Each must put out what the model does, account for all of its relevance, and leave no operation uncovered.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrib


class EinsumAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 5)
        self.q, self.k, self.v = (nn.Parameter(torch.randn(16, 16) * 0.2) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = (torch.einsum("btd,de->bte", tokens, w) for w in (self.q, self.k, self.v))
        weights = torch.softmax(torch.einsum("bte,bse->bts", q, k) / 4, -1)
        mixed: Tensor = self.head((torch.einsum("bts,bse->bte", weights, v) + tokens).mean(1))
        return mixed


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.layer(x.permute(0, 2, 1, 3).flatten(2))
        answer: Tensor = self.head(outputs[:, -1] + outputs[:, 0])
        return answer


class Cells(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        state: Tensor | tuple[Tensor, Tensor] | None = None
        for row in x.permute(0, 2, 1, 3).flatten(2).unbind(1):
            state = self.cell(row, state)
        answer: Tensor = self.head(state[0] if isinstance(state, tuple) else state)
        return answer


class Features(nn.Module):
    """L2 pooling, Fourier magnitudes, instance norm, GLU, a spelled-out norm with var_mean, lerp, addcmul."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.instance = nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True)
        self.head, self.mix = nn.Linear(20, 5), nn.Parameter(torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        y = F.softplus(self.conv(x))
        lengths = y.pow(2).mean((2, 3)).sqrt()
        spectrum = torch.fft.rfft2(self.instance(y)).abs().mean((2, 3))
        variance, mean = torch.var_mean(y, (2, 3))
        gated = F.glu((y.mean((2, 3)) - mean.mean(1, keepdim=True)) / (variance + 1).sqrt(), dim=1)
        mixed = torch.lerp(F.normalize(lengths, dim=1), torch.addcmul(spectrum, lengths, self.mix), 0.3)
        answer: Tensor = self.head(torch.cat([lengths, mixed, gated], 1))
        return answer


_NETS = {
    "einsum": EinsumAttention,
    "lstm": lambda: Recurrent(nn.LSTM(24, 16, 2, batch_first=True, bidirectional=True), 32),
    "lstm without biases": lambda: Recurrent(nn.LSTM(24, 16, batch_first=True, bias=False), 16),
    "projected lstm": lambda: Recurrent(nn.LSTM(24, 16, batch_first=True, proj_size=8), 8),
    "gru": lambda: Recurrent(nn.GRU(24, 16, 2, batch_first=True), 16),
    "tanh": lambda: Recurrent(nn.RNN(24, 16, batch_first=True), 16),
    "relu": lambda: Recurrent(nn.RNN(24, 16, batch_first=True, nonlinearity="relu"), 16),
    "lstm cells": lambda: Cells(nn.LSTMCell(24, 16)),
    "gru cells": lambda: Cells(nn.GRUCell(24, 16)),
    "tanh cells": lambda: Cells(nn.RNNCell(24, 16)),
    "features": Features,
}


@pytest.fixture(params=list(_NETS))
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = _NETS[request.param]().double()
    return made


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_relevance_is_complete_and_nothing_is_uncovered(net: nn.Module) -> None:
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    result = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset="epsilon"), target=1, strict=True)
    assert result.ledger is not None and result.delta is not None
    torch.testing.assert_close(result.score, net(x)[:, 1].detach(), rtol=1e-9, atol=1e-9)
    assert result.delta.abs().max() < 1e-6 * result.score.abs().max().clamp_min(1)
    assert result.ledger["input"].abs().min() > 1e-4, "relevance must reach the input"


def test_a_gate_gets_nothing_and_the_signal_all() -> None:
    torch.manual_seed(0)
    cell = nn.LSTMCell(3, 1, bias=False).double()
    with torch.no_grad():
        cell.weight_hh.zero_()
    x = torch.randn(1, 3, 1, 1, dtype=torch.float64)

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = self.cell(x.flatten(1))[0]
            return torch.cat([hidden, -hidden], 1)

    result = attrib.explain(attrib.wrap(Head()), x, attrib.LRP(preset="gradient"), target=0)
    share = x.flatten() * cell.weight_ih[2]  # the cell's signal: tanh(w·x), identity rule
    wanted = result.score * share / share.sum()
    torch.testing.assert_close(result.values.flatten(), wanted.detach(), rtol=1e-9, atol=1e-12)


def test_einsum_is_matmul() -> None:
    torch.manual_seed(0)
    net = EinsumAttention().double()

    class Spelled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.net.patches(x).flatten(2).transpose(1, 2)
            q, k, v = tokens @ self.net.q, tokens @ self.net.k, tokens @ self.net.v
            mixed: Tensor = self.net.head((torch.softmax(q @ k.mT / 4, -1) @ v + tokens).mean(1))
            return mixed

    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for preset in ("epsilon_plus_flat", "attn_lrp", "cp_lrp"):
        first = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset=preset), target=2)
        second = attrib.explain(attrib.wrap(Spelled()), x, attrib.LRP(preset=preset), target=2)
        torch.testing.assert_close(first.values, second.values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet", "excitation_pullback"])
def test_a_rule_that_met_no_relu_says_so(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    without = attrib.explain(attrib.wrap(EinsumAttention()), x, name, target=0)
    assert any("plain gradient" in note for note in without.notes)
    with_one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    assert not any("plain gradient" in note for note in attrib.explain(attrib.wrap(with_one), x, name, target=0).notes)


def test_a_model_that_autograd_cannot_differentiate_is_named() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(192, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(x.flatten(1))
            y += 1  # the backward of ReLU needs what it put out
            answer: Tensor = self.head(y)
            return answer

    model = attrib.wrap(Overwriting())
    x = torch.randn(1, 3, 8, 8)
    with pytest.raises(attrib.UnsupportedModel, match=r"no gradient that autograd can compute.*inplace"):
        attrib.explain(model, x, "saliency", target=0)
    assert attrib.explain(model, x, attrib.Occlusion(window=4, stride=4), target=0).values.abs().max() > 0


class Swish(torch.autograd.Function):
    """x·σ(x), as older packages have it: no mode sees inside."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        gate = torch.sigmoid(x)
        return gradient * gate * (1 + x * (1 - gate))


class WithSwish(nn.Module):
    def __init__(self, activation: nn.Module | None) -> None:
        super().__init__()
        self.conv, self.head, self.activation = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), activation

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = Swish.apply(y) if self.activation is None else self.activation(y)
        answer: Tensor = self.head(y.mean((2, 3)))
        return answer


class SwishModule(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Swish.apply(x)


@pytest.mark.parametrize("name", ["lrp", "deeplift", "guided_backprop"])
def test_a_custom_autograd_function_is_uncovered(name: str) -> None:
    torch.manual_seed(0)
    model, x = attrib.wrap(WithSwish(None)), torch.randn(2, 3, 8, 8)
    result = attrib.explain(model, x, name, target=0)
    assert result.coverage is not None and any("Swish" in operation for operation in result.coverage.uncovered)
    assert any("Swish" in note for note in result.notes)
    with pytest.raises(attrib.UncoveredOperation, match="Swish"):
        attrib.explain(model, x, name, target=0, strict=True)


def test_as_an_activation_module_it_is_known_by_its_behaviour() -> None:
    torch.manual_seed(0)
    net, x = WithSwish(SwishModule()).double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    builtin = WithSwish(nn.SiLU()).double()
    builtin.load_state_dict(net.state_dict())
    for method in (attrib.LRP(), attrib.DeepLift()):
        first, second = (attrib.explain(attrib.wrap(n), x, method, target=0, strict=True) for n in (net, builtin))
        torch.testing.assert_close(first.values, second.values, rtol=1e-7, atol=1e-10)


def test_places_masked_by_minus_infinity_leave_nothing_open() -> None:
    """exp(−∞) = 0, as in the decay of state space models, while exp(0) = 1 is booked as an offset elsewhere."""

    class Decaying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps, self.head = nn.Linear(48, 6), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            steps = self.steps(x.permute(0, 2, 1, 3).flatten(2)).cumsum(1) / 8
            between = steps[:, :, None] - steps[:, None]
            seen = torch.ones(16, 16, dtype=torch.bool).tril()[:, :, None]
            answer: Tensor = self.head(between.masked_fill(~seen, float("-inf")).exp().mean((1, 2)))
            return answer

    torch.manual_seed(0)
    model, x = attrib.wrap(Decaying().double().eval()), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    found = attrib.explain(model, x, attrib.LRP("epsilon"), target=1, strict=True)
    assert found.delta is not None and float(found.delta.abs().max()) < 1e-9


class Opened(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
        self.pairs, self.norm, self.name = nn.Bilinear(8, 8, 8), nn.LocalResponseNorm(3, alpha=0.5, k=2.0), name

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.name == "bilinear":
            tokens = y.flatten(2).mT
            y = self.pairs(tokens, tokens.roll(1, 1)).mT.unflatten(2, (4, 4))
        elif self.name == "local response":
            y = self.norm(y)
        elif self.name == "matrices":
            y = torch.stack([torch.linalg.multi_dot([one, one.mT.relu(), one]) for one in y.flatten(0, 1)]).view_as(y)
        else:
            y.diagonal(0, 2, 3).mul_(2)
        answer: Tensor = self.head(y.mean((2, 3)))
        return answer


@pytest.mark.parametrize("method", [attrib.LRP(preset="epsilon"), attrib.LRP(preset="attn_lrp"), attrib.DeepLift()])
@pytest.mark.parametrize("name", ["bilinear", "local response", "matrices", "diagonal"])
def test_operations_that_torch_offers_whole_are_opened(name: str, method: attrib.LRP | attrib.DeepLift) -> None:
    torch.manual_seed(0)
    net, x = Opened(name).double().eval(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    found = attrib.explain(attrib.wrap(net), x, method, target=1, strict=True)
    assert found.delta is not None and float(found.delta.abs().max()) < 1e-9
    torch.testing.assert_close(found.score, net(x)[:, 1].detach())


def test_a_score_that_rules_take_as_constant_says_so() -> None:
    class Reciprocal(Opened):
        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.head(1 / (2 + self.conv(x).relu().mean((2, 3))))
            return answer

    with pytest.raises(attrib.UnsupportedModel, match="constant, as reciprocals"):
        attrib.explain(attrib.wrap(Reciprocal("").eval()), torch.randn(1, 3, 16, 16), "lrp", target=1)
