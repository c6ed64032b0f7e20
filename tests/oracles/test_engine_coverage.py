"""Nothing silent: what has a rule, what needs none, what is uncovered, and what cannot be seen at all."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrib
from attrib.binding import bind
from attrib.methods.base import Question
from attrib.methods.lrp import propagate
from attrib.rules.elementwise import identity
from attrib.rules.engine import Rules
from attrib.rules.linear import Epsilon, Gamma, ZPlus
from attrib.rules.presets import preset_named
from attrib.rules.shadow import shadow

BOUNDS = (torch.tensor(-3.0), torch.tensor(3.0))


def seeded(net: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(4)
    for parameter in net.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4
    return net.eval()


def picture(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 4, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


class Wave(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.logcumsumexp(x, 3)


class Gated(nn.Module):
    """Squeeze and excitation by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        scale = torch.sigmoid(self.gate(x.mean((2, 3))))
        return self.head((x * scale[:, :, None, None]).sum((2, 3)))


def waving() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Wave())
    return seeded(nn.Sequential(body, nn.Flatten(), nn.Linear(64, 3)))


def test_an_operation_without_a_rule_is_named():
    result = attrib.explain(attrib.wrap(waving()), picture(), attrib.LRP(), 1)
    assert result.coverage.uncovered == {"logcumsumexp in 0.1": 1}
    assert any("logcumsumexp in 0.1" in note for note in result.notes)
    assert "uncovered: logcumsumexp in 0.1" in str(result.coverage)
    assert sum(result.coverage.ruled.values()) == 2 and result.coverage.linear["flatten"] == 1


@pytest.mark.parametrize("method", [attrib.LRP(), attrib.DeepLift()])
def test_strict_raises(method):
    with pytest.raises(attrib.UncoveredOperation, match=r"'logcumsumexp' in module '0\.1'"):
        attrib.explain(attrib.wrap(waving()), picture(), method, 1, strict=True)


def test_strict_takes_a_rule_that_one_brings():
    net = seeded(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU(), nn.Flatten(), nn.Linear(64, 3)))
    bare = Rules({"conv": Epsilon(), "linear": Epsilon()}, conserving=True)
    model, x = attrib.wrap(net), picture()
    question = Question(model, shadow(net), x, bind(1, 2, model.index_of), strict=True)
    with pytest.raises(attrib.UncoveredOperation, match=r"'gelu' in module '1'"):
        propagate(question, bare)
    assert propagate(question, bare | Rules({"gelu": identity})).coverage.uncovered == {}


def test_guided_backprop_reports_the_activations_it_has_no_rule_for():
    net = seeded(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    )
    result = attrib.explain(attrib.wrap(net), picture(), "guided_backprop", 1)
    assert result.coverage.uncovered == {"gelu in 1": 1} and result.coverage.ruled == {"relu": 1}
    with pytest.raises(attrib.UncoveredOperation, match="gelu"):
        attrib.explain(attrib.wrap(net), picture(), "guided_backprop", 1, strict=True)


def test_rules_are_values():
    one, two = Rules({"conv": ZPlus(), "linear": Epsilon()}), Rules({"conv": Gamma()})
    assert (one | two).find("conv", "x") == Gamma() and (one | two).find("linear", "x") == Epsilon()
    assert (two | one).find("conv", "x") == ZPlus()
    assert one.find("conv", "x") == ZPlus(), "nothing changes what it is made of"
    with pytest.raises(TypeError):
        one.table["conv"] = Gamma()
    scoped = one.inside("blocks.3.*", two).inside("*.last", {"conv": Epsilon()})
    assert scoped.find("conv", "blocks.3.conv1") == Gamma()
    assert scoped.find("conv", "blocks.3.last") == Epsilon(), "the last scope wins"
    assert scoped.find("conv", "blocks.30.conv1") == ZPlus() and scoped.find("linear", "blocks.3.x") == Epsilon()
    assert (one | scoped).find("conv", "blocks.3.conv1") == Gamma(), "scopes survive a union"


def test_inside_changes_the_rule_of_that_module_only():
    net = seeded(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    )
    model, x = attrib.wrap(net), picture()
    base = Rules({"conv": Epsilon(), "linear": Epsilon()})
    values = {}
    for path in ("0", "2", "[02]", "5", "nowhere"):
        rules = base.inside(path, {"conv": ZPlus()})
        values[path] = attrib.explain(model, x, attrib.LRP("gradient", rules=rules), 1).values
    everywhere = attrib.explain(model, x, attrib.LRP("gradient", rules=base | Rules({"conv": ZPlus()})), 1).values
    nowhere = attrib.explain(model, x, attrib.LRP("gradient", rules=base), 1).values
    assert torch.equal(values["[02]"], everywhere)
    assert torch.equal(values["nowhere"], nowhere) and torch.equal(values["5"], nowhere)
    distinct = [values["0"], values["2"], everywhere, nowhere]
    assert all(not torch.allclose(a, b) for i, a in enumerate(distinct) for b in distinct[:i])


def test_a_gate_gets_nothing():
    """The signal takes all: the gate's own weights only scale."""
    net = seeded(Gated())
    result = attrib.explain(attrib.wrap(net), picture(), attrib.LRP("gradient"), 1, strict=True)
    x = picture().requires_grad_()
    z = F.relu(net.conv(x))
    scale = torch.sigmoid(net.gate(z.mean((2, 3)))).detach()
    score = net.head((z * scale[:, :, None, None]).sum((2, 3)))[:, 1]
    (gradient,) = torch.autograd.grad(score.sum(), x)
    torch.testing.assert_close(result.values, (x * gradient).detach())
    assert result.ledger["unaccounted"].abs().max() < 1e-12


def test_the_ledger_says_what_the_biases_took():
    """Under LRP-0 a bias takes b·∂f/∂z: the sum over all biases is the score less input × gradient."""
    net = seeded(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)))
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    x = picture()
    result = attrib.explain(attrib.wrap(net), x, attrib.LRP("gradient"), 1)
    for row in range(2):
        score = net(x[row : row + 1])[0, 1]
        slopes = torch.autograd.grad(score, [net[0].bias, net[3].bias])
        expected = sum(
            float((slope * b).sum().detach()) for slope, b in zip(slopes, (net[0].bias, net[3].bias), strict=True)
        )
        assert result.ledger["bias"][row].item() == pytest.approx(expected, rel=1e-10)
    plain = attrib.explain(attrib.wrap(net), x, "input_x_gradient", 1)
    torch.testing.assert_close(result.values, plain.values)
    torch.testing.assert_close(result.ledger["bias"], -plain.delta)


def test_the_ledger_says_what_epsilon_took():
    epsilon = 0.05
    net = seeded(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)))
    x = picture(1)
    rules = Rules({"linear": Epsilon(epsilon)})
    ledger = attrib.explain(attrib.wrap(net), x, attrib.LRP("gradient", rules=rules), 1).ledger
    z, b = float(net(x)[0, 1].detach()), float(net[1].bias[1].detach())
    s = z / (abs(z) + epsilon) * (1 if z >= 0 else -1)
    assert float(ledger["stabiliser"]) == pytest.approx(epsilon * abs(s), rel=1e-10)
    assert float(ledger["bias"]) == pytest.approx(s * (1 if z >= 0 else -1) * b * (1 if z >= 0 else -1), rel=1e-10)


@pytest.mark.parametrize("preset", ["epsilon", "epsilon_plus", "epsilon_plus_flat", "epsilon_gamma_box"])
def test_the_ledger_adds_up(preset):
    result = attrib.explain(attrib.wrap(seeded(Gated())), picture(), attrib.LRP(preset), 1)
    names = set(result.ledger)
    assert {"input", "bias", "stabiliser", "unaccounted"} <= names
    assert preset_named(preset, BOUNDS).conserving
    torch.testing.assert_close(sum(result.ledger.values()), result.score, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.ledger["input"], result.values.flatten(1).sum(1))
    torch.testing.assert_close(result.delta, -result.ledger["unaccounted"])
    assert result.ledger["unaccounted"].abs().max() < 1e-12


def test_models_whose_operations_cannot_be_seen():
    net, x = waving(), picture()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that TorchScript is on its way out
        scripted, traced = torch.jit.script(net), torch.jit.trace(net, x)
    for opaque in (scripted, traced, nn.Sequential(net, traced)):
        with pytest.raises(attrib.OpaqueModel, match="TorchScript"):
            attrib.wrap(opaque)
    with pytest.raises(attrib.OpaqueModel, match=r"torch\.compile"):
        attrib.wrap(torch.compile(net))
    compiled_in_place = waving()
    compiled_in_place.compile()
    with pytest.raises(attrib.OpaqueModel, match=r"torch\.compile"):
        attrib.wrap(compiled_in_place)


def test_a_model_compiled_after_it_was_wrapped():
    net = waving()
    model = attrib.wrap(net)
    expected = attrib.explain(model, picture(), "lrp", 1)
    net.compile()
    assert torch.equal(attrib.explain(model, picture(), "lrp", 1).values, expected.values), "its twin runs as written"
