"""Modules that libraries and users have put something on: computed weights, hooks, other forwards, counters."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import attrib


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.3, 3)
    return net


def pruned() -> nn.Module:
    net = plain()
    prune.random_unstructured(net[0], "weight", 0.3)
    prune.l1_unstructured(net[7], "weight", 0.2)
    return net


def parametrised() -> nn.Module:
    net = plain()
    parametrizations.weight_norm(net[0])
    parametrizations.spectral_norm(net[3])
    parametrizations.orthogonal(net[7])
    return net


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias, self.stride, self.padding)


def standardised() -> nn.Module:
    net = plain()
    net[0] = Standardised(3, 6, 3, padding=1)
    return net


def hooked() -> nn.Module:
    net = plain()
    net[0].register_forward_hook(lambda module, args, output: output * 2)
    net[1].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return net


def other_forwards() -> nn.Module:
    """As accelerate and monkey-patchers leave a model: partial functions and closures that hold the modules."""
    net = plain()
    for module in list(net):
        former = module.forward

        def run(former: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
            return former(x)

        module.forward = functools.update_wrapper(functools.partial(run, former), former)
    conv = net[3]
    conv.forward = lambda x: F.conv2d(x, conv.weight * 1.5, conv.bias)
    return net


class Counting(nn.Module):
    """Counts in its buffers, a list and a number, and answers by what it counted."""

    __slots__ = ("factor",)

    def __init__(self) -> None:
        super().__init__()
        self.net, self.factor, self.log, self.calls = plain(), 2.0, [], 0
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.mean.mul_(0.9).add_(x.detach().mean((0, 2, 3)).float() * 0.1)
        self.calls += 1
        self.log.append(len(x))
        answer: Tensor = self.net(x) * self.factor
        return answer


NETS = {f.__name__: f for f in (pruned, parametrised, standardised, hooked, other_forwards, Counting)}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_maps_of_the_network_as_it_runs(make: Callable[[], nn.Module]) -> None:
    net = make().double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    expected = torch.zeros_like(x)
    for node, weight in zip(nodes, weights, strict=True):
        leaf = (x * (node + 1) / 2).requires_grad_()
        expected += torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)[0] * x * weight / 2
    # enough passes that BatchNorm is folded where that is allowed
    found = attrib.explain(attrib.wrap(net), x, attrib.IntegratedGradients(n_steps=16), 1)
    torch.testing.assert_close(found.values, expected)
    single = net.float()
    folded = attrib.explain(attrib.wrap(single), x.float(), attrib.IntegratedGradients(n_steps=16), 1)
    torch.testing.assert_close(folded.values, expected.float(), rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_relevance_is_complete_and_the_cache_does_not_grow(make: Callable[[], nn.Module]) -> None:
    model, x = attrib.wrap(make().double()), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    sizes = []
    for _ in range(4):
        for preset in ("epsilon_plus_flat", "epsilon_gamma_box"):
            result = attrib.explain(model, x, attrib.LRP(preset=preset), 1, strict=True)
            assert result.delta is not None and result.delta.abs().max() < 1e-9
        sizes.append(len(model.weight_cache._entries))
    assert sizes[-1] <= sizes[0] + 2, "weights that the model computes anew are not kept"


def state(net: nn.Module) -> object:
    tensors = {name: (t.detach().clone().numpy().tobytes(), t._version) for name, t in net.state_dict().items()}
    modules = [(m.training, len(m._forward_hooks), m.__dict__.get("forward"), sorted(vars(m))) for m in net.modules()]
    return tensors, modules, getattr(net, "calls", 0), list(getattr(net, "log", ()))


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_nothing_is_left_on_it_in_train_mode(make: Callable[[], nn.Module]) -> None:
    net, x = make().train(), torch.randn(2, 3, 8, 8)
    before = state(net)
    for name in ("saliency", "lrp", "deeplift", "guided_backprop", "normgrad"):
        attrib.explain(attrib.wrap(net), x, name, 1)
    assert state(net) == before
    assert all(parameter.grad is None for parameter in net.parameters())


def test_hooks_of_the_users_own_fire_and_write_where_they_always_do() -> None:
    net, seen = plain(), {}
    net[3].register_forward_hook(lambda module, args, output: seen.update(shape=tuple(output.shape)))
    attrib.explain(attrib.wrap(net), torch.randn(2, 3, 8, 8), "lrp", 1)
    assert seen == {"shape": (2, 6, 6, 6)}


@pytest.mark.parametrize("name", ["saliency", "lrp", "deeplift", "integrated_gradients"])
def test_weights_made_in_inference_mode(name: str) -> None:
    with torch.inference_mode():
        model, x = attrib.wrap(plain()), torch.randn(2, 3, 8, 8)
    first, second = (attrib.explain(m, x, name, 1) for m in (model, attrib.wrap(plain())))
    torch.testing.assert_close(first.values, second.values)
    assert all(parameter.is_inference() for parameter in model.module.parameters())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_quantised_model_is_refused() -> None:
    net = nn.Sequential(nn.Flatten(), torch.ao.nn.quantized.dynamic.Linear(12, 2))
    with pytest.raises(attrib.UnsupportedModel, match="'1' is quantised"):
        attrib.wrap(net)
