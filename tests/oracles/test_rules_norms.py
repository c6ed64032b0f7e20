"""BatchNorm in a rule equals the network into which it was folded by hand; other norms are constants of scale."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import attrib
from attrib.rules.presets import PRESETS


def randomised(net: nn.Module) -> nn.Module:
    """BatchNorm statistics as after training, some weights negative."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda like: torch.randn(like.shape, generator=generator, dtype=torch.float64)  # noqa: E731
    for module in net.double().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(draw(module.running_mean) * 0.3)
            module.running_var.copy_(draw(module.running_var).abs() + 0.5)
            if module.affine:
                module.weight.data.copy_(draw(module.weight))
                module.bias.data.copy_(draw(module.bias) * 0.3)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
            for parameter in module.parameters():
                parameter.data.copy_(draw(parameter) * 0.3)
    return net.eval()


def folded(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """W ← W·s, b ← (b − μ)·s + β with s = γ/√(σ² + ε)."""
    scale = (norm.weight if norm.affine else torch.ones(())) / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias if norm.affine else torch.zeros(())
    old = torch.zeros(()) if layer.bias is None else layer.bias
    kind = type(layer)
    if kind is nn.Linear:
        new = nn.Linear(layer.in_features, layer.out_features)
    else:
        new = kind(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
                   groups=layer.groups)  # fmt: skip
    axis = 1 if kind is nn.ConvTranspose2d else 0
    shape = [1] * layer.weight.dim()
    shape[axis] = -1
    new.double()
    new.weight.data = (layer.weight * scale.view(shape)).detach()
    new.bias.data = ((old - norm.running_mean) * scale + shift).detach()
    return new.eval()


PAIRS = {
    "conv": lambda: (nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)),
    "conv without bias": lambda: (nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6)),
    "conv, norm without weights": lambda: (nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6, affine=False)),
    "transposed conv": lambda: (nn.ConvTranspose2d(3, 6, 2, 2), nn.BatchNorm2d(6)),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "beta_smooth"])
def test_folding(preset, pair):
    layer, norm = PAIRS[pair]()
    size = {"conv without bias": 2, "transposed conv": 8}.get(pair, 4)
    middle, middle_norm = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
    tail = [nn.ReLU(), middle, middle_norm, nn.ReLU(), nn.Flatten(), nn.Linear(5 * size**2, 7), nn.BatchNorm1d(7)]
    stem = nn.Conv2d(3, 3, 1)
    net = randomised(nn.Sequential(stem, layer, norm, *tail))
    by_hand = nn.Sequential(
        stem,
        folded(layer, norm),
        nn.ReLU(),
        folded(middle, middle_norm),
        nn.ReLU(),
        nn.Flatten(),
        folded(tail[5], tail[6]),
    )
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model = attrib.wrap(net)
    method = attrib.LRP(preset=preset)
    expected = attrib.explain(attrib.wrap(by_hand), x, method, [1, 2])
    for attempt in ("cold", "warm"):  # the second call knows which layers a norm follows
        result = attrib.explain(model, x, method, [1, 2])
        torch.testing.assert_close(result.values, expected.values, rtol=1e-9, atol=1e-11, msg=attempt)
        torch.testing.assert_close(result.score, expected.score)
        torch.testing.assert_close(result.ledger["bias"], expected.ledger["bias"], rtol=1e-9, atol=1e-11)
        assert result.ledger["unaccounted"].abs().max() < 1e-10  # a forgotten stabiliser would be 1e-8


def test_weights_changed_between_calls_are_seen():
    layer, norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
    net = randomised(nn.Sequential(layer, norm, nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)))
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model, method = attrib.wrap(net), attrib.LRP()
    before = attrib.explain(model, x, method, 1)
    with torch.no_grad():
        layer.weight.mul_(-1)
        norm.running_mean += 0.5
    after = attrib.explain(model, x, method, 1)
    fresh = attrib.explain(attrib.wrap(net), x, method, 1)
    assert torch.equal(after.values, fresh.values) and not torch.equal(before.values, after.values)
    assert before.provenance.weights_hash != after.provenance.weights_hash


def test_a_convolution_with_two_norms():
    """One convolution, used twice, a norm of its own behind each use: both are folded for themselves."""

    class Shared(nn.Module):
        def __init__(self, conv, first, second):
            super().__init__()
            self.conv, self.first, self.second, self.head = conv, first, second, nn.Linear(48, 4)

        def forward(self, x):
            x = torch.relu(self.first(self.conv(x)))
            return self.head(torch.relu(self.second(self.conv(x))).flatten(1))

    net = randomised(Shared(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)))
    one, two = folded(net.conv, net.first), folded(net.conv, net.second)
    by_hand = nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), nn.Flatten(), net.head)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for preset in PRESETS:
        method, model = attrib.LRP(preset=preset), attrib.wrap(net)
        expected = attrib.explain(attrib.wrap(by_hand), x, method, 1)
        for _ in range(2):
            torch.testing.assert_close(
                attrib.explain(model, x, method, 1).values, expected.values, rtol=1e-9, atol=1e-11
            )


def test_norm_before_the_convolution():
    """DenseNet's order: y = s·x + t hands on its s·x and books its t."""
    net = randomised(nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 4)))
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    norm, head = net[0], net[2]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    coefficient = head.weight[1].view(3, 4, 4)
    result = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset="gradient"), 1)
    torch.testing.assert_close(result.values[0], (x[0] * scale[:, None, None] * coefficient).detach())
    expected = (shift[:, None, None] * coefficient).sum() + head.bias[1]
    torch.testing.assert_close(result.ledger["bias"][0], expected.detach())


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_norms_with_statistics_of_the_input(norm):
    """(x − mean)/std·w + b with std a constant: R_x = x ⊙ (w·c − mean of w·c)/std."""
    net = nn.Sequential(
        nn.LayerNorm([4, 3, 3]) if norm == "layer" else nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(36, 3)
    )
    generator = torch.Generator().manual_seed(8)
    for parameter in net.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    x = torch.randn(1, 4, 3, 3, generator=generator, dtype=torch.float64)
    weight, bias, groups = (*(p.detach() for p in net[0].parameters()), 1 if norm == "layer" else 2)
    if norm == "group":
        weight, bias = weight[:, None, None].expand(4, 3, 3), bias[:, None, None].expand(4, 3, 3)
    c = net[2].weight[1].detach().view(4, 3, 3)
    expected = []
    for part, coefficient in zip(x[0].chunk(groups), (c * weight).chunk(groups), strict=True):
        std = (part.var(unbiased=False) + 1e-5).sqrt()
        expected.append(part * (coefficient - coefficient.mean()) / std)
    result = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset="gradient"), 1)
    torch.testing.assert_close(result.values[0], torch.cat(expected))
    torch.testing.assert_close(result.ledger["bias"][0], (c * bias).sum() + net[2].bias[1].detach())
    assert abs(float(result.ledger["unaccounted"])) < 1e-12
