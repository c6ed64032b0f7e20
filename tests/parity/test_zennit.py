"""Our presets against zennit's composites in float64, on VGG-, ResNet-, MobileNet- and EfficientNet-type networks.

What is compared is the rules. zennit's Norm rule adds 1e-6 to the denominator at every residual sum and average
pool, where ours needs no rule and no stabiliser; through a deep random network that alone makes up to 3e-4, and
the difference shrinks in proportion to the stabiliser (2.5e-4, 2.5e-6, 2.5e-7 with 1e-6, 1e-8, 1e-9 on ResNet-18;
far below, rounding divided by the stabiliser takes over). So both get 1e-9 here, and `test_at_default_settings`
says what holds with the defaults.

Every bn.eps is 0: zennit's merge keeps it and so explains a slightly different network, ours the one that it was given.
"""

from __future__ import annotations

import copy

import pytest
import torch
import zennit.composites
import zennit.core
import zennit.rules
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.types import AvgPool

import attrib
from attrib.rules.engine import Rules
from attrib.rules.first import Flat, WSquare, ZBox
from attrib.rules.linear import AlphaBeta, Epsilon, Gamma, ZPlus
from attrib.rules.stabiliser import Stabiliser
from tests.parity.zennit_networks import HIGH, LOW, TARGETS, pictures, theirs, trained_networks

TINY = 1e-9


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    return trained_networks()


BOX = (torch.tensor(LOW), torch.tensor(HIGH))
OURS = {
    "EpsilonPlus": ("epsilon_plus", ZPlus(TINY), None),
    "EpsilonPlusFlat": ("epsilon_plus_flat", ZPlus(TINY), Flat(TINY)),
    "EpsilonGammaBox": ("epsilon_gamma_box", Gamma(0.25, TINY), ZBox(*BOX, TINY)),
    "EpsilonAlpha2Beta1": ("epsilon_alpha2_beta1", AlphaBeta(2.0, 1.0, TINY), None),
    "EpsilonAlpha2Beta1Flat": ("epsilon_alpha2_beta1_flat", AlphaBeta(2.0, 1.0, TINY), Flat(TINY)),
}
NETWORKS = ("vgg11", "vgg11_bn", "resnet18", "mobilenet_v2", "efficientnet_b0")


def bounds_of(composite: str, x: Tensor) -> dict:
    box = {"low": torch.full_like(x, LOW), "high": torch.full_like(x, HIGH)}
    return box if composite == "EpsilonGammaBox" else {}


def worst(ours: Tensor, reference: Tensor) -> float:
    """max |difference| / max |reference|, of the worse sample."""
    each = (ours - reference).abs().flatten(1).amax(1) / reference.abs().flatten(1).amax(1)
    return float(each.max())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("composite", OURS)
def test_rules(networks, composite, network):
    net, x = networks[network], pictures()
    preset, conv, first = OURS[composite]
    exact = Rules({"conv": conv, "linear": Epsilon(TINY), **({} if first is None else {"first": first})})
    method = attrib.LRP(preset, low=LOW, high=HIGH, rules=exact)
    ours = attrib.explain(attrib.wrap(net), x, method, TARGETS, strict=True).values
    expected = theirs(net, x, composite, epsilon=TINY, stabilizer=TINY, **bounds_of(composite, x))
    assert worst(ours, expected) < 1e-6


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("composite", OURS)
def test_at_default_settings(networks, composite, network):
    net, x = networks[network], pictures()
    method = attrib.LRP(OURS[composite][0], low=LOW, high=HIGH)
    ours = attrib.explain(attrib.wrap(net), x, method, TARGETS).values
    expected = theirs(net, x, composite, **bounds_of(composite, x))
    assert worst(ours, expected) < 3e-4


STABILISERS = {
    "shifted": Stabiliser(1e-3),
    "clipped": Stabiliser(1e-3, how="clip"),
    "shifted by the norm": Stabiliser(1e-3, unit="rms"),
    "clipped at the norm": Stabiliser(1e-3, how="clip", unit="rms"),
}
LINEAR = (nn.Conv2d, nn.Linear)


def of_zennit(stabiliser: Stabiliser) -> zennit.core.Stabilizer:
    return zennit.core.Stabilizer(stabiliser.epsilon, stabiliser.how == "clip", stabiliser.unit == "rms")


def without_bias(bias: str) -> list[str] | None:
    return ["bias"] if bias == "excluded" else None


def rule_pairs(stabiliser: Stabiliser, bias: str) -> dict[str, tuple]:
    theirs, zero, low, high = of_zennit(stabiliser), without_bias(bias), *BOX
    bounds = {"low": low.view(1, 1, 1, 1).double(), "high": high.view(1, 1, 1, 1).double()}
    return {
        "Epsilon": (Epsilon(stabiliser, bias), zennit.rules.Epsilon(theirs, zero)),
        "Gamma": (Gamma(0.25, stabiliser, bias), zennit.rules.Gamma(0.25, theirs, zero)),
        "ZPlus": (ZPlus(stabiliser, bias), zennit.rules.ZPlus(theirs, zero)),
        "AlphaBeta": (AlphaBeta(2.0, 1.0, stabiliser, bias), zennit.rules.AlphaBeta(2.0, 1.0, theirs, zero)),
        "ZBox": (ZBox(*BOX, stabiliser), zennit.rules.ZBox(**bounds, stabilizer=theirs, zero_params=zero)),
        "WSquare": (WSquare(stabiliser, bias), zennit.rules.WSquare(theirs, zero)),
        "Flat": (Flat(stabiliser), zennit.rules.Flat(theirs, zero)),
    }


def three_layers() -> nn.Module:
    """Large biases, and a layer that no ReLU follows: outputs of both signs get relevance."""
    torch.manual_seed(2)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2), nn.Flatten(), nn.Linear(45, 10)]
    net = nn.Sequential(*layers).double().eval()
    for layer in (net[0], net[2], net[4]):
        nn.init.normal_(layer.bias, 0.0, 0.5)
    return net.requires_grad_(False)


@pytest.mark.parametrize("bias", ["absorbs", "excluded"])
@pytest.mark.parametrize("stabiliser", STABILISERS)
@pytest.mark.parametrize("rule", rule_pairs(Stabiliser(), "absorbs"))
def test_stabilisers_and_biases(rule, stabiliser, bias):
    """The rule everywhere, or at the first layer with ε elsewhere, and what is left of the score in the ledger."""
    net, x = three_layers(), pictures()[:, :, :8, :8]
    pairs, first = rule_pairs(STABILISERS[stabiliser], bias), rule in ("ZBox", "WSquare", "Flat")
    ours, hook = pairs[rule]
    everywhere, hooks = pairs["Epsilon"] if first else pairs[rule]
    table = Rules({"conv": everywhere, "linear": everywhere, **({"first": ours} if first else {})})
    found = attrib.explain(attrib.wrap(net), x, attrib.LRP("gradient", rules=table), TARGETS, strict=True)
    composite = zennit.composites.SpecialFirstLayerMapComposite(
        layer_map=[(LINEAR, hooks)], first_map=[(LINEAR, hook)] if first else []
    )
    with Gradient(model=copy.deepcopy(net), composite=composite) as attributor:
        _, expected = attributor(x.clone(), lambda out: torch.eye(10, dtype=x.dtype)[TARGETS] * out.detach())
    assert worst(found.values, expected.detach()) < 1e-9
    assert (found.ledger["unaccounted"].abs() < 1e-9 * (1 + sum(v.abs() for v in found.ledger.values()))).all()
    assert ("bias" in found.ledger) == (bias == "absorbs")


@pytest.mark.parametrize(
    ("stabiliser", "bias"), [("clipped", "excluded"), ("shifted by the norm", "absorbs"), ("shifted", "excluded")]
)
@pytest.mark.parametrize("composite", [*OURS, "ExcitationBackprop"])
def test_composites_with_other_stabilisers(networks, composite, stabiliser, bias):
    net, x, chosen = networks["vgg11_bn"], pictures(), STABILISERS[stabiliser]
    preset = OURS[composite][0] if composite in OURS else "excitation_backprop"
    method = attrib.LRP(preset, stabiliser=chosen, bias=bias, low=LOW, high=HIGH)
    ours = attrib.explain(attrib.wrap(net), x, method, TARGETS, strict=True).values
    settings = {"epsilon": of_zennit(chosen)} if composite in OURS else {}
    # stabilizer is also that of average pools, where ours has none; layers get theirs from the layer map
    expected = theirs(
        net, x, composite, zero_params=without_bias(bias), layer_map=[(AvgPool, zennit.rules.Norm(TINY))],
        stabilizer=of_zennit(chosen), **settings, **bounds_of(composite, x),
    )  # fmt: skip
    assert worst(ours, expected) < 1e-6


@pytest.mark.parametrize("network", NETWORKS)
def test_excitation_backprop(networks, network):
    net, x = networks[network], pictures()
    method = attrib.LRP("excitation_backprop", stabiliser=TINY)
    ours = attrib.explain(attrib.wrap(net), x, method, TARGETS).values
    passed = [((nn.SiLU, nn.Sigmoid, nn.ReLU6), zennit.rules.Pass())]  # zennit's own has no rule for these
    assert worst(ours, theirs(net, x, "ExcitationBackprop", stabilizer=TINY, layer_map=passed)) < 1e-6


@pytest.mark.parametrize("network", ["vgg11", "vgg11_bn", "resnet18"])
def test_beta_smooth(networks, network):
    """zennit returns the modified gradient, our presets x ⊙ gradient."""
    net, x = networks[network], pictures()
    found = attrib.explain(attrib.wrap(net), x, attrib.LRP("beta_smooth"), TARGETS, strict=True)
    assert worst(found.values, x * theirs(net, x, "BetaSmooth", seed_is_score=False)) < 1e-9
    assert found.ledger is None and found.delta is None


@pytest.mark.parametrize("network", ["vgg11", "vgg11_bn", "resnet18"])
@pytest.mark.parametrize(("name", "composite"), [("guided_backprop", "GuidedBackprop"), ("deconvnet", "DeconvNet")])
def test_rectifiers(networks, name, composite, network):
    net, x = networks[network], pictures()
    ours = attrib.explain(attrib.wrap(net), x, name, TARGETS, strict=True).values
    assert worst(ours, theirs(net, x, composite, seed_is_score=False)) < 1e-12
