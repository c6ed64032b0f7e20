"""Large products with frozen weights go to oneDNN on CPUs where that is quicker: same values, same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attrib.rules.products import QuickProducts, _usable

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
    return any("_Product" in str(node) for node in nodes)


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
    assert _taken(quick) is _usable()


def test_gradients_of_gradients_are_right():
    x, out = X.clone().requires_grad_(), OUT.clone().requires_grad_()
    with QuickProducts():
        gradient = torch.autograd.grad(F.linear(x, WEIGHT), x, out, create_graph=True)[0]
        second = torch.autograd.grad(gradient.square().sum(), out)[0]
    exact = 2 * (OUT.double() @ WEIGHT.double()) @ WEIGHT.double().t()
    assert (second - exact).abs().max() < 1e-5 * exact.abs().max()


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
