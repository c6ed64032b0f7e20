"""DeepLIFT through products, norms and attention: exact differences on transformers and on unusual networks."""

from __future__ import annotations

import pytest
import torch
from test_unusual_networks import _NETS
from tiny_transformers import EAGER_ONLY, EXACT, FAMILIES, Stub, build, embeddings
from torch import Tensor, nn

import attrib
from attrib.binding import BoundTarget
from attrib.methods.base import Question
from attrib.methods.deeplift import DeepLift
from attrib.rules.shadow import shadow


def lift(module: nn.Module, x: Tensor, baseline: Tensor) -> tuple[Tensor, Tensor]:
    """(values, completeness error), with nothing uncovered."""
    target = BoundTarget("logit", positive=torch.tensor([1, 0]))
    question = Question(Stub(module), shadow(module), x, target, strict=True)  # type: ignore[arg-type]
    finding = DeepLift(baseline).explain(question)
    assert finding.delta is not None
    return finding.values, finding.delta


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_transformers_are_complete(family: str, attention: str) -> None:
    if attention == "sdpa" and family in EAGER_ONLY:
        attention = "eager"
    module, x = build(family, attention), embeddings()
    for baseline in (torch.zeros_like(x), embeddings(seed=3)):
        values, delta = lift(module, x, baseline)
        tolerance = 1e-9 if family in EXACT else 1e-5  # the others cast to float32 inside
        assert delta.abs().max() < tolerance * values.abs().sum((1, 2)).max()


def test_sdpa_and_eager_agree() -> None:
    x, baseline = embeddings(), embeddings(seed=3)
    for family in ("gpt2", "bert"):
        (first, _), (second, _) = (lift(build(family, kind), x, baseline) for kind in ("sdpa", "eager"))
        torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-10)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", [name for name in _NETS if name != "features"])  # |complex| has no rule
def test_unusual_networks_are_complete(name: str) -> None:
    torch.manual_seed(0)
    net = _NETS[name]().double()
    x, baseline = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    result = attrib.explain(attrib.wrap(net), x, DeepLift(baseline), 1, strict=True)
    assert result.delta is not None
    assert result.delta.abs().max() < 1e-9


class Factors(nn.Module):
    """f(a, b) = a·b over the two halves of the input, spelled in place, out of place, as a quotient's inverse."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.head = how, nn.Linear(4, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.flatten(1).chunk(2, 1)
        if self.how == "in place":
            product = a.clone()
            product *= b
        elif self.how == "quotient":
            product = a / b
        elif self.how == "maximum":
            product = torch.maximum(a, b)
        elif self.how == "largest":
            product = torch.stack([a, b]).amax(0)
        else:
            product = torch.mul(a, b)
        answer: Tensor = self.head(product)
        return answer


@pytest.mark.parametrize("how", ["out of place", "in place"])
def test_each_factor_gets_the_mean_of_its_two_orders(how: str) -> None:
    torch.manual_seed(0)
    net = Factors(how).double()
    x, x0 = torch.randn(2, 1, 2, 4, dtype=torch.float64), torch.randn(2, 1, 2, 4, dtype=torch.float64)
    values = attrib.explain(attrib.wrap(net), x, DeepLift(x0), 1).values.flatten(1)
    (a, b), (a0, b0) = x.flatten(1).chunk(2, 1), x0.flatten(1).chunk(2, 1)
    w = net.head.weight[1].detach()
    # Shapley's value of two players: changed first, or changed last
    of_a = w * ((a - a0) * b0 + (a - a0) * b) / 2
    of_b = w * ((b - b0) * a0 + (b - b0) * a) / 2
    torch.testing.assert_close(values, torch.cat([of_a, of_b], 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", ["quotient", "maximum", "largest"])
def test_quotients_and_maxima_are_complete(how: str) -> None:
    torch.manual_seed(0)
    x, x0 = torch.rand(2, 1, 2, 4, dtype=torch.float64) + 0.2, torch.rand(2, 1, 2, 4, dtype=torch.float64) + 0.2
    result = attrib.explain(attrib.wrap(Factors(how).double()), x, DeepLift(x0), 1, strict=True)
    assert result.delta is not None and result.delta.abs().max() < 1e-12
    assert result.values.abs().min() >= 0 and result.values.abs().max() > 1e-3


def test_a_norm_does_not_blow_up_near_a_zero_baseline() -> None:
    torch.manual_seed(0)
    blocks = [layer for _ in range(6) for layer in (nn.LayerNorm(48), nn.Linear(48, 48), nn.GELU())]
    net = nn.Sequential(nn.Flatten(), *blocks, nn.Linear(48, 2)).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    result = attrib.explain(attrib.wrap(net), x, DeepLift("zero"), 1)
    assert result.delta is not None and result.delta.abs().max() < 1e-9
    assert result.values.abs().sum() < 100 * result.score.abs().sum()


def test_softmax_is_its_jacobian_at_logarithmic_means() -> None:
    class Weights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).softmax(-1) * self.one

    torch.manual_seed(0)
    x, x0 = torch.randn(1, 1, 1, 5, dtype=torch.float64), torch.randn(1, 1, 1, 5, dtype=torch.float64)
    values = attrib.explain(attrib.wrap(Weights()), x, DeepLift(x0), 2).values.flatten()
    p, p0 = x.flatten().softmax(-1), x0.flatten().softmax(-1)
    mean = (p - p0) / (p.log() - p0.log())
    wanted = (mean[2] * (torch.eye(5, dtype=torch.float64)[2] - mean / mean.sum())) * (x - x0).flatten()
    torch.testing.assert_close(values, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(values.sum(), p[2] - p0[2], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", ["by name", "in a list"])
def test_factors_that_cannot_be_told_apart_are_uncovered(how: str) -> None:
    class Spelled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            a, b = x.flatten(1).chunk(2, 1)
            product = torch.mul(a, other=b) if how == "by name" else torch.einsum("bi,bi->bi", [a, b])
            answer: Tensor = self.head(product)
            return answer

    torch.manual_seed(0)
    model, x = attrib.wrap(Spelled()), torch.rand(2, 1, 2, 4)
    with pytest.raises(attrib.UncoveredOperation):
        attrib.explain(model, x, DeepLift("zero"), 1, strict=True)


OUTSIDE = nn.Parameter(torch.tensor(0.5))


def test_a_weight_outside_of_the_model_leaves_pointwise_convolutions_a_graph():
    """Such a weight takes part in the input's run alone, so that the baseline's run is followed by its graph."""

    class Net(nn.Module):
        def __init__(self, scale):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.mix, self.head, self.scale = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 5), scale

        def forward(self, x):
            return self.head((self.mix(self.conv(x).relu()) * self.scale()).relu().mean((2, 3)))

    x = torch.randn(2, 3, 16, 16)
    nets = (Net(scale).eval() for scale in (lambda: OUTSIDE, lambda: OUTSIDE.detach()))
    found, expected = (attrib.explain(attrib.wrap(net), x, "deeplift", target=1) for net in nets)
    torch.testing.assert_close(found.values, expected.values)
