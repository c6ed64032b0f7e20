"""What theory says must hold, on networks and inputs that hypothesis makes up."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import attrib
from attrib.methods.deeplift import DeepLift
from attrib.rules.engine import Rules
from attrib.rules.linear import Epsilon
from attrib.rules.presets import PRESETS

CONSERVING = [name for name in PRESETS if name != "beta_smooth"]
few = settings(max_examples=15, deadline=None, derandomize=True)


def draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Net(nn.Module):
    """Some convolutions and ReLUs, each but the first with a residual add; max- or average-pooled; linear."""

    def __init__(self, depth: int, width: int, pool: str, bias: bool, seed: int) -> None:
        super().__init__()
        sizes = [3, *[width] * depth]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=bias) for i, o in pairwise(sizes))
        self.pool = {"max": nn.MaxPool2d(2), "average": nn.AvgPool2d(2), "none": nn.Identity()}[pool]
        self.head = nn.Linear(width * (36 if pool == "none" else 9), 4, bias=bias)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.double().parameters():
            spread = (parameter[0].numel() if parameter.dim() > 1 else 4) ** -0.5
            parameter.data = draw(tuple(parameter.shape), generator) * 1.5 * spread
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.convs[0](x))
        for conv in list(self.convs)[1:]:
            x = torch.relu(conv(x)) + x
        return self.head(self.pool(x).flatten(1))


nets = st.builds(
    Net,
    depth=st.integers(1, 4),
    width=st.integers(2, 6),
    pool=st.sampled_from(["max", "average", "none"]),
    bias=st.booleans(),
    seed=st.integers(0, 10_000),
)
bias_free = st.builds(
    Net,
    depth=st.integers(1, 4),
    width=st.integers(2, 6),
    pool=st.sampled_from(["max", "average", "none"]),
    bias=st.just(False),
    seed=st.integers(0, 10_000),
)
inputs = st.integers(0, 10_000).map(lambda seed: draw((2, 3, 6, 6), torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("preset", CONSERVING)
@few
@given(net=bias_free, x=inputs)
def test_relevance_is_conserved_without_biases(preset, net, x):
    """All of the score reaches the input, except what the stabilisers take, which the ledger says."""
    result = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset), 1)
    assert (result.ledger.get("bias", torch.zeros(2)) == 0).all()
    taken = result.ledger.get("stabiliser", torch.zeros_like(result.score))
    scale = result.values.abs().sum((1, 2, 3)) + result.score.abs() + 1e-6
    assert ((result.values.sum((1, 2, 3)) + taken - result.score).abs() < 1e-9 * scale).all()


@pytest.mark.parametrize("preset", CONSERVING)
@few
@given(net=nets, x=inputs)
def test_the_ledger_accounts_for_all(preset, net, x):
    result = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset), [0, 2], strict=True)
    scale = sum(amount.abs() for amount in result.ledger.values()) + result.values.abs().sum((1, 2, 3))
    assert (result.ledger["unaccounted"].abs() <= 1e-9 * scale).all()


@few
@given(net=bias_free, x=inputs)
def test_epsilon_to_zero_is_input_times_gradient(net, x):
    model = attrib.wrap(net)
    expected = attrib.explain(model, x, "input_x_gradient", 1).values
    size = float(expected.abs().max()) + 1e-9
    tiny = Rules(dict.fromkeys(("conv", "linear"), Epsilon(1e-13)))
    nearly = attrib.explain(model, x, attrib.LRP("gradient", rules=tiny), 1).values
    exactly = attrib.explain(model, x, attrib.LRP("gradient"), 1).values
    assert float((exactly - expected).abs().max()) < 1e-12 * size
    assert float((nearly - expected).abs().max()) < 1e-6 * size


@few
@given(net=nets, x=inputs, baseline=inputs)
def test_deeplift_is_complete(net, x, baseline):
    """Σ = f(x) − f(x₀), with its own sum and the network's own numbers."""
    result = attrib.explain(attrib.wrap(net), x, DeepLift(baseline), 1)
    with torch.no_grad():
        difference = net(x)[:, 1] - net(baseline)[:, 1]
    scale = result.values.abs().sum((1, 2, 3)) + 1.0
    assert ((result.values.sum((1, 2, 3)) - difference).abs() < 1e-9 * scale).all()
    assert (result.delta.abs() < 1e-9 * scale).all()


@few
@given(net=nets, x=inputs)
def test_methods_of_the_gradient_do_not_see_how_a_function_is_built(net, x):
    """Implementation invariance: an identity made of two convolutions in front changes no gradient."""

    class Roundabout(nn.Module):
        def __init__(self):
            super().__init__()
            self.there = nn.Conv2d(3, 6, 1, bias=False).double()
            self.back = nn.Conv2d(6, 3, 1, bias=False).double()
            eye = torch.eye(3, dtype=torch.float64)
            self.there.weight.data = torch.cat([eye, 2 * eye])[:, :, None, None]
            self.back.weight.data = torch.cat([3 * eye, -eye], 1)[:, :, None, None]
            self.net = net

        def forward(self, x):
            return self.net(self.back(self.there(x)))

    for method in ("saliency", "input_x_gradient"):
        expected = attrib.explain(attrib.wrap(net), x, method, 1).values
        found = attrib.explain(attrib.wrap(Roundabout().eval()), x, method, 1).values
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@few
@given(net=nets, x=inputs)
def test_lrp_is_linear_in_its_seed(net, x):
    """Relevance of twice the logit is twice the relevance."""
    model = attrib.wrap(net)
    once = attrib.explain(model, x, attrib.LRP("epsilon_plus"), lambda logits: logits[:, 1]).values
    twice = attrib.explain(model, x, attrib.LRP("epsilon_plus"), lambda logits: 2 * logits[:, 1]).values
    torch.testing.assert_close(twice, 2 * once, rtol=1e-12, atol=1e-14)


def mean_correlation(maps: Tensor) -> float:
    """Mean Pearson correlation between the maps of different classes."""
    table = torch.corrcoef(maps.flatten(1))
    return float((table.sum() - len(table)) / (len(table) * (len(table) - 1)))


def test_guided_backprop_does_not_see_the_class():
    """Nie et al. 2018: on random weights guided backprop is alike for every class, the gradient is not."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convs = [layer for i in (3, 64, 64) for layer in (nn.Conv2d(i, 64, 3, padding=1, bias=False), nn.ReLU())]
        net = nn.Sequential(*convs, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 64, 10, bias=False))
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        x = torch.rand(1, 3, 16, 16)
    model = attrib.wrap(net.eval())
    batch, classes = x.expand(10, -1, -1, -1).contiguous(), list(range(10))
    maps = {
        name: attrib.explain(model, batch, attrib.LRP("gradient") if name == "lrp" else name, classes).values
        for name in ("guided_backprop", "deconvnet", "lrp")
    }
    gradient = maps["lrp"] / x  # x · g over x
    assert mean_correlation(gradient) < 0.1
    assert mean_correlation(maps["guided_backprop"]) > 0.7
    assert mean_correlation(maps["deconvnet"]) > mean_correlation(gradient) + 0.2
