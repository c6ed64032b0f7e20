"""Methods with a modified backward pass against captum in float64.

Guided backprop and DeconvNet: captum's give exactly what ours give. DeepLIFT: equal wherever
no max-pool follows an activation directly. There captum loses relevance, and not by its max-pool rule, which hands
on exactly what it gets: the tensor between the two modules carries two hooks, that of the activation, which reads
the gradient, and that of the pool, which replaces it, and they run in this order. So the activation multiplies the
plain gradient, not the pool's multiplier. `test_captum_between_an_activation_and_a_max_pool` keeps the case: a 1×1
identity convolution between the two, which changes nothing in the function, makes captum complete and equal to ours.
"""

from __future__ import annotations

import warnings

import captum.attr
import pytest
import torch
from tiny_nets import pictures
from torch import Tensor, nn

import attrib
from attrib.methods.deeplift import DeepLift


def net(pool: nn.Module | None = None, activation: type[nn.Module] = nn.ReLU, norm: bool = False) -> nn.Module:
    """Modules only, each used once, as captum's hooks need it."""
    layers = [nn.Conv2d(3, 6, 3, padding=1), *([nn.BatchNorm2d(6)] if norm else []), activation()]
    layers += [pool] if pool is not None else []
    layers += [nn.Conv2d(6, 8, 3, padding=1), activation(), nn.AvgPool2d(2), nn.Flatten()]
    side = 4 if pool is None else 2
    made = nn.Sequential(*layers, nn.Linear(8 * side**2, 12), activation(), nn.Linear(12, 5)).double()
    generator = torch.Generator().manual_seed(2)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4
    if norm:
        made[1].running_mean.copy_(torch.randn(6, generator=generator, dtype=torch.float64) * 0.3)
        made[1].running_var.copy_(torch.rand(6, generator=generator, dtype=torch.float64) + 0.5)
    return made.eval()


def captum_of(method: type, module: nn.Module, x: Tensor, **arguments) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it puts hooks on the model
        return method(module).attribute(x.clone().requires_grad_(), target=[1, 2], **arguments).detach()


def worst(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("pool", [None, nn.MaxPool2d(2)], ids=["no pool", "max-pool"])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("saliency", captum.attr.Saliency),
        ("input_x_gradient", captum.attr.InputXGradient),
        ("guided_backprop", captum.attr.GuidedBackprop),
        ("deconvnet", captum.attr.Deconvolution),
    ],
)
def test_one_backward(name, theirs, pool, norm):
    x, module = pictures(2), net(pool, norm=norm)
    ours = attrib.explain(attrib.wrap(module), x, name, [1, 2]).values
    reference = captum_of(theirs, module, x)
    # ours runs convolutions in channels_last, whose kernels sum in another order
    assert torch.equal(ours, reference) if name in ("saliency", "input_x_gradient") else worst(ours, reference) < 1e-12


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.ELU])
@pytest.mark.parametrize("baseline", ["zero", "another picture"])
def test_deeplift(baseline, activation, norm):
    x, module = pictures(2), net(activation=activation, norm=norm)
    reference = torch.zeros_like(x) if baseline == "zero" else pictures(2, seed=9)
    result = attrib.explain(attrib.wrap(module), x, DeepLift(reference), [1, 2])
    assert worst(result.values, captum_of(captum.attr.DeepLift, module, x, baselines=reference)) < 1e-6


class Spaced(nn.Module):
    """A max-pool behind a convolution that does nothing, so that no activation stands directly before it."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.nothing, self.pool = nn.Conv2d(6, 6, 1, bias=False), pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.nothing(x))


def spaced(module: nn.Module, pool: nn.Module) -> nn.Module:
    """`module`, whose third part is `pool`, with the convolution that does nothing before it."""
    made = nn.Sequential(*module)
    made[2] = Spaced(pool)
    made[2].nothing.weight.data = torch.eye(6, dtype=torch.float64)[:, :, None, None]
    return made.eval()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_deeplift_with_max_pool(activation):
    x, reference, pool = pictures(2), pictures(2, seed=9), nn.MaxPool2d(2)
    module = spaced(net(pool, activation), pool)
    result = attrib.explain(attrib.wrap(module), x, DeepLift(reference), [1, 2])
    assert worst(result.values, captum_of(captum.attr.DeepLift, module, x, baselines=reference)) < 1e-6


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_captum_between_an_activation_and_a_max_pool(activation):
    x, reference, pool = pictures(2), pictures(2, seed=9), nn.MaxPool2d(2)
    module = net(pool, activation)
    ours = attrib.explain(attrib.wrap(module), x, DeepLift(reference), [1, 2])
    theirs = captum_of(captum.attr.DeepLift, module, x, baselines=reference)
    with torch.no_grad():
        difference = (module(x) - module(reference)).gather(1, torch.tensor([[1], [2]]))[:, 0]
    assert (theirs.sum((1, 2, 3)) - difference).abs().min() > 0.01, "captum is complete here now: compare with it"
    assert (ours.values.sum((1, 2, 3)) - difference).abs().max() < 1e-12
    by_detour = captum_of(captum.attr.DeepLift, spaced(module, pool), x, baselines=reference)
    assert worst(ours.values, by_detour) < 1e-6
