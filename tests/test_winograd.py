"""Convolutions by minimal filtering: the outputs and gradients of plain ones, to the rounding of float32."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from attrib.rules import arranged, winograd
from attrib.rules.arranged import arrange
from attrib.rules.onednn import usable
from attrib.rules.shadow import shadow
from attrib.rules.winograd import best_side, convolved, minimal, transformed, turned

SIDES = (2, 3, 4)
_NEEDS_ARRANGING = pytest.mark.skipif(not usable(), reason="this CPU keeps torch's own convolutions")


def _case(batch, into, out, height, width):
    torch.manual_seed(batch + into + height)
    x = torch.randn(batch, into, height, width).contiguous(memory_format=torch.channels_last)
    return x, torch.randn(out, into, 3, 3), torch.randn(out)


def _distance(found, known):
    return float((found - known).abs().max() / known.abs().max())


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("case", [(3, 5, 7, 9, 10), (1, 16, 8, 3, 3), (2, 64, 96, 12, 17)])
def test_the_same_outputs_whatever_does_not_fit_the_tiles(side, padding, case):
    x, weight, bias = _case(*case)
    known = conv2d(x.double(), weight.double(), bias.double(), padding=padding)
    found = convolved(x, transformed(weight, side), bias, padding)
    assert found.is_contiguous(memory_format=torch.channels_last) and not found._is_view()
    assert _distance(found, known) < 8e-6


@pytest.mark.parametrize("side", SIDES)
def test_the_turned_weights_give_the_transpose(side):
    x, weight, _ = _case(2, 24, 40, 13, 11)
    c = torch.randn(2, 40, 13, 11).contiguous(memory_format=torch.channels_last)
    leaf = x.double().requires_grad_()
    (known,) = torch.autograd.grad(conv2d(leaf, weight.double(), padding=1), leaf, c.double())
    assert _distance(convolved(c, transformed(turned(weight), side), None, (1, 1)), known) < 3e-6


@pytest.mark.parametrize("together", [1, 3_000, 20_000])
def test_the_pieces_change_nothing(monkeypatch, together):
    x, weight, bias = _case(5, 8, 6, 18, 14)
    kernels = transformed(weight, 4)
    whole = convolved(x, kernels, bias, (1, 1))
    monkeypatch.setattr(winograd, "_TOGETHER", together)
    assert _distance(convolved(x, kernels, bias, (1, 1)), whole) < 3e-6


@pytest.mark.parametrize("side", SIDES)
def test_in_exact_arithmetic_the_matrices_are_the_convolution(side):
    inputs, weights, outputs = winograd._toom_cook(side)
    d, g = torch.randn(side + 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    known = (d.unfold(0, 3, 1) * g).sum(1)
    found = outputs @ ((weights @ g) * (inputs @ d))
    torch.testing.assert_close(found, known, rtol=1e-13, atol=1e-13)


def test_the_direct_way_where_there_is_nothing_to_gain():
    few, many = torch.Size((64, 3, 3, 3)), torch.Size((256, 256, 3, 3))
    assert best_side(torch.Size((1, 3, 224, 224)), few, (1, 1)) is None
    assert best_side(torch.Size((1, 256, 56, 56)), many, (1, 1)) == 4
    assert best_side(torch.Size((32, 256, 6, 6)), many, (1, 1)) == 3  # two tiles of three, not two of four
    assert best_side(torch.Size((1, 256, 1, 1)), many, (0, 0)) is None  # it does not fit


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 5),
        nn.Conv2d(8, 8, 3, padding=3),
        nn.Conv2d(8, 8, 3, padding="same"),
    ],
)
def test_other_convolutions_are_left_alone(layer):
    x = torch.randn(1, 8, 9, 9).contiguous(memory_format=torch.channels_last)
    assert not minimal(layer, x)
    assert minimal(nn.Conv2d(8, 8, 3), x) and not minimal(nn.Conv2d(8, 8, 3), x.contiguous())


def _run(net, x):
    x = x.clone().requires_grad_()
    y = net(x)
    return y.detach(), torch.autograd.grad(y.square().sum(), x)[0]


@_NEEDS_ARRANGING
@pytest.mark.parametrize("bias", [True, False])
def test_arranged_layers_take_it_and_say_the_same(monkeypatch, bias):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(64, 128, 3, padding=1, bias=bias), nn.Softplus(), nn.Conv2d(128, 64, 3, bias=bias)
    ).eval()
    x = torch.randn(4, 64, 24, 24).contiguous(memory_format=torch.channels_last)
    known = _run(net.double(), x.double())
    twin, calls = shadow(net.float().requires_grad_(False)), []
    arrange(twin)
    monkeypatch.setattr(arranged, "convolved", lambda *given: calls.append(1) or convolved(*given))
    for found, exact in zip(_run(twin, x), known, strict=True):
        assert _distance(found, exact) < 1e-5
    assert len(calls) == 4


@_NEEDS_ARRANGING
def test_pieces_of_other_sizes_are_computed_alike():
    torch.manual_seed(0)
    net = nn.Conv2d(128, 128, 3, padding=1).eval().requires_grad_(False)
    arrange(twin := shadow(nn.Sequential(net)))
    x = torch.randn(8, 128, 12, 12).contiguous(memory_format=torch.channels_last)
    whole = twin(x)
    torch.testing.assert_close(torch.cat([twin(x[:7]), twin(x[7:])]), whole, rtol=0, atol=2e-6)


@_NEEDS_ARRANGING
@pytest.mark.parametrize("bias", [True, False])
def test_where_all_that_a_window_sees_is_zero_nothing_is_rounded(monkeypatch, bias):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(64, 128, 3, padding=1, bias=bias)).eval().requires_grad_(False)
    arrange(twin := shadow(net))
    x = torch.randn(2, 64, 24, 24).contiguous(memory_format=torch.channels_last)
    x[0, :, :, :15] = 0  # no tile ends where the zeros do
    x[1, 5:, 2:9, 3:7] = 0  # not alone
    known = net[0].bias.view(-1, 1, 1).expand(128, 24, 14) if bias else torch.zeros(128, 24, 14)
    found = twin(x)
    assert torch.equal(found[0, :, :, :14], known) and found.is_contiguous(memory_format=torch.channels_last)
    assert _distance(found, net(x).double()) < 8e-6
    monkeypatch.setattr(arranged, "unmoved", lambda y, *_: y)
    assert not torch.equal(twin(x)[0, :, :, :14], known)  # what the test would not see otherwise
