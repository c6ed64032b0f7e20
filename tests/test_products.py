"""Large products with frozen weights go to oneDNN on CPUs where that is quicker: same values, same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attrib.rules.onednn import usable
from attrib.rules.picked import few, picked
from attrib.rules.products import QuickProducts

_RANDOM = torch.Generator().manual_seed(0)
X, WEIGHT, BIAS, OUT = (
    torch.randn(shape, generator=_RANDOM) for shape in ((3, 16, 256), (640, 256), 640, (3, 16, 640))
)


def _layer():
    layer = nn.Linear(256, 640).requires_grad_(False)
    layer.weight.copy_(WEIGHT)
    layer.bias.copy_(BIAS)
    return layer


SPELLINGS = {
    "linear": lambda x: F.linear(x, WEIGHT, BIAS),
    "module": lambda x: _layer()(x),
    "addmm": lambda x: torch.addmm(BIAS, x.flatten(0, 1), WEIGHT.t().contiguous()).unflatten(0, x.shape[:2]),
}


def _taken(output):
    nodes = (output.grad_fn, *(behind for behind, _ in output.grad_fn.next_functions))
    return any("RuleFunction" in str(node) for node in nodes)


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=list(SPELLINGS))
def test_values_and_gradients_are_those_of_float64(spelling):
    x = X.clone().requires_grad_()
    with QuickProducts():
        quick = spelling(x)
        gradient = torch.autograd.grad(quick, x, OUT)[0]
        with torch.no_grad():
            alone = spelling(x)
    exact, back = X.double() @ WEIGHT.double().t() + BIAS.double(), OUT.double() @ WEIGHT.double()
    assert (quick - exact).abs().max() < 1e-5 * exact.abs().max()
    assert torch.equal(quick, alone)
    assert (gradient - back).abs().max() < 1e-5 * back.abs().max()
    assert _taken(quick) is usable()


def test_gradients_of_gradients_are_right():
    x, out = X.clone().requires_grad_(), OUT.clone().requires_grad_()
    with QuickProducts():
        gradient = torch.autograd.grad(F.linear(x, WEIGHT), x, out, create_graph=True)[0]
        second = torch.autograd.grad(gradient.square().sum(), out)[0]
    exact = 2 * (OUT.double() @ WEIGHT.double()) @ WEIGHT.double().t()
    assert (second - exact).abs().max() < 1e-5 * exact.abs().max()


PICTURES = torch.randn(2, 64, 32, 32, generator=_RANDOM)
KERNEL, SHIFT = torch.randn(48, 64, 1, 1, generator=_RANDOM), torch.randn(48, generator=_RANDOM)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("bias", [None, SHIFT], ids=["plain", "bias"])
def test_pointwise_convolutions_and_their_gradients_are_those_of_float64(layout, batch, bias):
    x = PICTURES[:batch].contiguous(memory_format=layout).requires_grad_()
    c = torch.randn(batch, 48, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with QuickProducts():
        quick = F.conv2d(x, KERNEL, bias)
        (gradient,) = torch.autograd.grad(quick, x, c, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), c)
    wide = x.detach().double().requires_grad_()
    exact = F.conv2d(wide, KERNEL.double(), None if bias is None else bias.double())
    (back,) = torch.autograd.grad(exact, wide, c.detach().double())
    twice = F.conv2d(2 * back, KERNEL.double())
    for found, wanted in ((quick, exact), (gradient, back), (second, twice)):
        assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
        assert found.is_contiguous(memory_format=layout)
    assert quick._is_view() is False
    assert ("RuleFunction" in str(quick.grad_fn)) is usable()


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (KERNEL, {"stride": 2}),
        (KERNEL, {"padding": 1}),
        (KERNEL[:, :32], {"groups": 2}),
        (KERNEL.expand(-1, -1, 3, 3), {}),
        (nn.Parameter(KERNEL.clone()), {}),
        (KERNEL.double(), {}),
    ],
    ids=["stride", "padding", "groups", "3x3", "trainable", "float64"],
)
def test_other_convolutions_are_left_to_torch(kernel, options):
    x = PICTURES.to(kernel.dtype).requires_grad_()
    with QuickProducts():
        output = F.conv2d(x, kernel, **options)
    assert "RuleFunction" not in str(output.grad_fn)
    assert torch.equal(output, F.conv2d(x, kernel, **options))


SMALL = torch.randn(1, 128, 12, 9, generator=_RANDOM)
NARROW = torch.randn(96, 128, 3, 3, generator=_RANDOM) / 30
SLIDING = {
    "plain": {},
    "padding": {"padding": 1},
    "stride": {"stride": 2, "padding": (1, 0)},
    "dilation": {"dilation": [2, 1], "padding": 2},
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("bias", [None, torch.randn(96, generator=_RANDOM)], ids=["plain", "bias"])
@pytest.mark.parametrize("sliding", SLIDING.values(), ids=list(SLIDING))
def test_convolutions_of_one_small_picture_and_their_gradients_are_those_of_float64(layout, bias, sliding):
    x = SMALL.contiguous(memory_format=layout).requires_grad_()
    wide = SMALL.double().requires_grad_()
    exact = F.conv2d(wide, NARROW.double(), None if bias is None else bias.double(), **sliding)
    c = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with QuickProducts():
        quick = F.conv2d(x, NARROW, bias, **sliding)
        (gradient,) = torch.autograd.grad(quick, x, c, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), c)
        (alone,) = torch.autograd.grad(F.conv2d(x, NARROW, bias, **sliding), x, c.detach())
    (back,) = torch.autograd.grad(exact, wide, c.detach().double())
    twice = F.conv2d(2 * back, NARROW.double(), **sliding)
    for found, wanted in ((quick, exact), (gradient, back), (alone, back), (second, twice)):
        assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert ("RuleFunction" in str(quick.grad_fn)) is usable()


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        (SMALL.expand(2, -1, -1, -1), NARROW, {}),
        (SMALL.repeat(1, 1, 2, 1), NARROW, {}),
        (SMALL, NARROW[:, :64], {"groups": 2}),
        (SMALL, NARROW, {"padding": "same"}),
        (SMALL, nn.Parameter(NARROW.clone()), {}),
        (SMALL[..., :3, :3], NARROW, {}),
        (SMALL[0], NARROW, {}),
    ],
    ids=["two", "large", "groups", "words", "trainable", "little work", "no batch"],
)
def test_other_convolutions_of_small_pictures_are_left_to_torch(x, kernel, options):
    x = x.detach().requires_grad_()
    with QuickProducts():
        output = F.conv2d(x, kernel, **options)
    assert "RuleFunction" not in str(output.grad_fn)
    assert torch.equal(output, F.conv2d(x, kernel, **options))


def test_a_kernel_larger_than_the_picture_is_torchs_to_refuse():
    with QuickProducts(), pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        F.conv2d(SMALL, NARROW.repeat(1, 1, 1, 5))


LEFT_TO_TORCH = {
    "float64": (X.double(), WEIGHT.double()),
    "one row": (X[:1, :1], WEIGHT),  # the call would cost more than it saves
    "vector": (X[0, 0], WEIGHT),
    "small": (X[..., :8], WEIGHT[:, :8]),
    "trainable": (X, nn.Parameter(WEIGHT.clone())),  # may want a gradient of its own
    "subclass": (X.as_subclass(type("Own", (torch.Tensor,), {})), WEIGHT),
}


@pytest.mark.parametrize(("x", "weight"), LEFT_TO_TORCH.values(), ids=list(LEFT_TO_TORCH))
def test_what_does_not_suit_is_left_to_torch(x, weight):
    x = x.detach().requires_grad_()
    plain = F.linear(x, weight)
    with QuickProducts():
        output = F.linear(x, weight)
    assert not _taken(output)
    assert torch.equal(plain, output)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_switching_onednn_off_is_respected():
    with torch.backends.mkldnn.flags(enabled=False), QuickProducts():
        assert not _taken(F.linear(X.clone().requires_grad_(), WEIGHT))


@pytest.mark.parametrize("shape", [(1, 2100), (3, 2100), (2, 5, 2100), (2100,)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_few_numbers_pick_their_rows_of_the_weights(shape, share):
    random = torch.Generator().manual_seed(1)
    weight = torch.randn(2100, 2000, generator=random)
    c = torch.randn(shape, generator=random) * (torch.rand(shape, generator=random) < share)
    assert few(c, weight) is (int(c.count_nonzero()) <= 0.6 * 2100)
    c.requires_grad_()
    exact = c.double() @ weight.double()
    value = picked(c, weight)
    (back,) = torch.autograd.grad(value, c, value.detach())
    assert value.shape == exact.shape
    assert (value - exact).abs().max() <= 1e-5 * exact.abs().max()
    assert (back - value.double() @ weight.double().t()).abs().max() <= 1e-5 * back.abs().max()


def test_layers_with_many_weights_have_the_gradients_of_plain_autograd():
    random = torch.Generator().manual_seed(2)
    net = nn.Sequential(nn.Linear(50, 2100), nn.ReLU(), nn.Linear(2100, 2000), nn.ReLU(), nn.Linear(2000, 2100))
    net.requires_grad_(False)
    for rows in (1, 2, 8):
        x = torch.randn(rows, 50, generator=random, requires_grad=True)
        with QuickProducts():
            (quick,) = torch.autograd.grad(net(x)[:, 3].sum(), x)
        (plain,) = torch.autograd.grad(net(x)[:, 3].sum(), x)
        assert (quick - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_inside_vmap_gradients_are_not_lost():
    layer = _layer()
    mapped = lambda x: torch.vmap(lambda row: layer(row.expand(64, -1))[0])(x)  # noqa: E731
    x = torch.randn(2, 256, generator=torch.Generator().manual_seed(3), requires_grad=True)
    with QuickProducts():
        (quick,) = torch.autograd.grad((mapped(x) + 0 * layer(x)).square().sum(), x)
    (plain,) = torch.autograd.grad(layer(x).square().sum(), x)
    assert torch.allclose(quick, plain, rtol=1e-4, atol=1e-5)
