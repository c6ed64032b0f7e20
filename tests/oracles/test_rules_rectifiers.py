"""Guided backprop, DeconvNet, excitation gates and pools, and rescale, each against its formula spelled out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attrib
from attrib.methods.deeplift import DeepLift
from attrib.methods.excitation import ExcitationPullback


def seeded(net: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(4)
    for parameter in net.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return net.eval()


def picture(*shape: int, seed: int = 6) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def between_two_layers(middle: nn.Module) -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(net, x, z before `middle`, u after it, W below it) of linear, middle, linear."""
    net = seeded(nn.Sequential(nn.Flatten(), nn.Linear(12, 40), middle, nn.Linear(40, 3)))
    x = picture(1, 3, 2, 2)
    with torch.no_grad():
        z = net[1](x.flatten(1))
    return net, x, z[0], net[3].weight[1].detach(), net[1].weight.detach()


GATES = {
    "guided_backprop": lambda z, u, top: u.clamp_min(0) * ((z > 0) & (z < top)),
    "deconvnet": lambda z, u, top: u.clamp_min(0),
    "saliency": lambda z, u, top: u * ((z > 0) & (z < top)),
}


@pytest.mark.parametrize(
    ("middle", "top"), [(nn.ReLU(), math.inf), (nn.ReLU(inplace=True), math.inf), (nn.ReLU6(), 6.0)]
)
@pytest.mark.parametrize("name", GATES)
def test_relu(name, middle, top):
    net, x, z, u, below = between_two_layers(middle)
    assert (z > 6).any() and (z < 0).any()
    expected = (GATES[name](z, u, top) @ below).view(1, 3, 2, 2)
    values = attrib.explain(attrib.wrap(net), x, name, 1).values
    torch.testing.assert_close(values, expected.abs() if name == "saliency" else expected)


@pytest.mark.parametrize("tau", [0.3, 2.0])
@pytest.mark.parametrize("middle", [nn.ReLU(), nn.ReLU6()])
def test_excitation_gate(middle, tau):
    net, x, z, u, below = between_two_layers(middle)
    gate = torch.sigmoid(z / tau)
    if isinstance(middle, nn.ReLU6):
        gate = gate - torch.sigmoid((z - 6) / tau)
    values = attrib.explain(attrib.wrap(net), x, ExcitationPullback(tau), 1).values
    torch.testing.assert_close(values, ((u * gate) @ below).view(1, 3, 2, 2))


POOLS = {
    "plain": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
    "ceil": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    "dilated": {"kernel_size": (2, 3), "stride": (1, 2), "padding": (0, 1), "dilation": (2, 1)},
}


def windows(settings: dict, height: int, width: int, out: torch.Size):
    """(output row, output column, places of the input it sees)."""

    def two(key, default):
        value = settings.get(key, default)
        return value if isinstance(value, tuple) else (value, value)

    kernel = two("kernel_size", 1)
    stride, padding, dilation = two("stride", kernel), two("padding", 0), two("dilation", 1)
    for row, column in itertools.product(range(out[2]), range(out[3])):
        ys = [row * stride[0] - padding[0] + k * dilation[0] for k in range(kernel[0])]
        xs = [column * stride[1] - padding[1] + k * dilation[1] for k in range(kernel[1])]
        yield row, column, [(y, x) for y in ys for x in xs if 0 <= y < height and 0 <= x < width]


def pooled_net(settings: dict) -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(net, x, what the pool gives, what comes back to it)."""
    x = picture(1, 2, 7, 6)
    out = F.max_pool2d(x, **settings)
    net = seeded(nn.Sequential(nn.MaxPool2d(**settings), nn.Flatten(), nn.Linear(out.numel(), 3)))
    return net, x, out, net[2].weight[1].detach().view(out.shape)


@pytest.mark.parametrize("settings", POOLS.values(), ids=POOLS)
def test_excitation_pool(settings):
    tau = 0.5
    net, x, out, u = pooled_net(settings)
    expected = torch.zeros_like(x)
    for channel in range(2):
        for row, column, places in windows(settings, 7, 6, out.shape):
            z = torch.stack([x[0, channel, i, j] for i, j in places])
            w = (z / tau).softmax(0)
            slope = w * (1 + (z - (w * z).sum()) / tau)
            for (i, j), part in zip(places, slope, strict=True):
                expected[0, channel, i, j] += u[0, channel, row, column] * part
    values = attrib.explain(attrib.wrap(net), x, ExcitationPullback(tau), 1).values
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("settings", POOLS.values(), ids=POOLS)
def test_rescale_at_a_max_pool(settings):
    """max(y, y₀) − y₀ goes to where x is largest, y − max(y, y₀) to where x₀ is, added up; over x − x₀."""
    net, x, out, u = pooled_net(settings)
    x0 = picture(1, 2, 7, 6, seed=9)
    out0 = F.max_pool2d(x0, **settings)
    expected = torch.zeros_like(x)
    for channel in range(2):
        for row, column, places in windows(settings, 7, 6, out.shape):
            at = max(places, key=lambda p: float(x[0, channel, p[0], p[1]]))
            at0 = max(places, key=lambda p: float(x0[0, channel, p[0], p[1]]))
            y, y0 = out[0, channel, row, column], out0[0, channel, row, column]
            here = u[0, channel, row, column]
            expected[0, channel, at[0], at[1]] += here * (torch.maximum(y, y0) - y0)
            expected[0, channel, at0[0], at0[1]] += here * (y - torch.maximum(y, y0))
    # (x − x₀) ⊙ (routed / (x − x₀)) is what was routed
    result = attrib.explain(attrib.wrap(net), x, DeepLift(x0), 1)
    torch.testing.assert_close(result.values, expected)
    assert result.delta.abs().max() < 1e-12


@pytest.mark.parametrize("middle", [nn.ReLU(), nn.ReLU6(), nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.GELU(), nn.ELU()])
def test_rescale(middle):
    net, x, z, u, below = between_two_layers(middle)
    x0 = picture(1, 3, 2, 2, seed=9)
    x0[0, 0] = x[0, 0]  # what does not differ gets nothing
    with torch.no_grad():
        z0 = net[1](x0.flatten(1))[0]
        slope = (middle(z) - middle(z0)) / (z - z0)
    expected = (x - x0) * ((u * slope) @ below).view(1, 3, 2, 2)
    result = attrib.explain(attrib.wrap(net), x, DeepLift(x0), 1)
    torch.testing.assert_close(result.values, expected)
    assert (result.values[0, 0] == 0).all() and result.delta.abs().max() < 1e-11


@pytest.mark.parametrize("middle", [nn.ReLU(), nn.Tanh(), nn.SiLU()])
def test_rescale_where_nothing_differs_is_the_gradient(middle):
    """At the baseline itself Δz = 0, and f′(z) stands for Δy/Δz: seen through multipliers of one changed pixel."""
    net, x, *_ = between_two_layers(middle)
    with torch.no_grad():
        net[1].weight[:, 1:] = 0  # only the first pixel reaches the net
        net[1].weight[20:, 0] = 0  # and only half of the hidden units
    x0 = x.clone()
    x0[0, 0, 0, 0] += 1e-13
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf)[0, 1], leaf)
    values = attrib.explain(attrib.wrap(net), x, DeepLift(x0), 1).values
    torch.testing.assert_close(values, (x - x0) * gradient, rtol=1e-6, atol=1e-20)


class Doing(nn.Module):
    def __init__(self, do):
        super().__init__()
        self.do = do

    def forward(self, x):
        return self.do(x)


STRAIGHT = {
    "nothing": lambda y: y,
    "deconvolution": nn.ConvTranspose2d(4, 4, 2, 2),
    "resized and shuffled": lambda y: (
        nn.functional.interpolate(y, scale_factor=2).roll(1, 2).unflatten(1, (2, 2)).sum(1)
    ),
    "stacked": lambda y: torch.stack([y, y.flip(3)]).mean(0).transpose(2, 3).cumsum(2),
    "largest": nn.MaxPool2d(2),
    "sorted": lambda y: y.flatten(2).sort(2)[0][..., :4],
    "a product": lambda y: y * y.mean((2, 3), keepdim=True),
    "a gate": lambda y: y * torch.sigmoid(y),
    "the middle": lambda y: y.flatten(2).median(2, keepdim=True)[0],
}


@pytest.mark.parametrize("name", STRAIGHT)
def test_a_deconvnet_map_that_hangs_on_no_input_says_so(name: str) -> None:
    torch.manual_seed(0)
    between = Doing(STRAIGHT[name])
    head = [nn.Flatten(2), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.LazyLinear(5)]
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), between, *head)
    net(torch.randn(1, 3, 8, 8))
    first, second = (attrib.explain(attrib.wrap(net), torch.randn(1, 3, 8, 8), "deconvnet", target=0) for _ in range(2))
    same = torch.equal(first.values, second.values)
    assert same is (name in ("nothing", "deconvolution", "resized and shuffled", "stacked"))
    assert any("same for every input" in note for note in first.notes) is same


class ChangedAfterwards(nn.Module):
    """A clamp at 0 whose output, or input, is changed in place: torch's derivative reads the other."""

    def __init__(self, clamp: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.below, self.above, self.clamp = nn.Linear(12, 40), nn.Linear(40, 3), clamp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.above(self.clamp(self.below(x.flatten(1))).add_(1.0))
        return answer


@pytest.mark.parametrize(
    "clamp", [lambda z: z.clamp_(min=0), lambda z: z.clamp(min=0), lambda z: torch.clip_(z, 0, 6), F.relu6]
)
@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
def test_a_model_may_change_what_it_clamped(name, clamp):
    net, x = seeded(ChangedAfterwards(clamp)), picture(1, 3, 2, 2)
    z, u = net.below(x.flatten(1))[0], net.above.weight[1]
    top = math.inf if clamp(torch.tensor(9.0)) == 9 else 6.0
    expected = (GATES[name](z, u, top) @ net.below.weight).view(1, 3, 2, 2)
    torch.testing.assert_close(attrib.explain(attrib.wrap(net), x, name, 1).values, expected)


@pytest.mark.parametrize("middle", [nn.ReLU6(), nn.Hardtanh(0.0, 1.0)])
@pytest.mark.parametrize("preset", ["epsilon", "epsilon_plus_flat"])
def test_clamps_in_half_precision_hand_back_numbers(preset, middle):
    net, x, *_ = between_two_layers(middle)
    wide = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset), 1)
    half = attrib.explain(attrib.wrap(net.half()), x.half(), attrib.LRP(preset), 1)
    torch.testing.assert_close(half.values.double(), wide.values, atol=0.02 * float(wide.values.abs().max()), rtol=0.0)
