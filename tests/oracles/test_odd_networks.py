"""Odd networks: gradients are autograd's, relevance adds up or what has no rule is named, and nothing is left."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.outputs import logits_of
from tests.contracts.contract_nets import state_of
from tests.oracles.odd_networks import COVERED, UNCOVERED, Routed

NETWORKS = [*COVERED, *UNCOVERED]


def made(network: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    return network().double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_autograds_and_nothing_is_left(network: type[nn.Module]) -> None:
    net, x = made(network)
    leaf = x.clone().requires_grad_()
    scores = logits_of(net(leaf.clone()))[:, 2]
    (gradient,) = torch.autograd.grad(scores.sum(), leaf)
    before = state_of(net)
    found = attrib.compare(attrib.wrap(net), x, ["saliency", "input_x_gradient", "guided_backprop", "occlusion"], 2)
    torch.testing.assert_close(found["saliency"].values, gradient.abs())
    torch.testing.assert_close(found["input_x_gradient"].values, x * gradient)
    assert all(torch.allclose(result.score, scores) for result in found.values())
    assert state_of(net) == before


@pytest.mark.parametrize("network", NETWORKS)
def test_integrated_gradients_tell_what_they_leave_open(network: type[nn.Module]) -> None:
    net, x = made(network)
    result = attrib.explain(attrib.wrap(net), x, attrib.IntegratedGradients(n_steps=64), 2)
    with torch.no_grad():
        explained = logits_of(net(x))[:, 2] - logits_of(net(torch.zeros_like(x)))[:, 2]
    torch.testing.assert_close(result.values.flatten(1).sum(1) - explained, result.delta)
    if network is not Routed:  # it jumps where a patch changes its expert: no number of steps closes that
        assert (result.delta.abs() <= 0.1 * explained.abs().max()).all()


@pytest.mark.parametrize("preset", ["epsilon", "epsilon_plus_flat", "attn_lrp"])
@pytest.mark.parametrize("network", NETWORKS)
def test_relevance_adds_up_or_what_has_no_rule_is_named(network: type[nn.Module], preset: str) -> None:
    net, x = made(network)
    result = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset), 2)
    torch.testing.assert_close(sum(result.ledger.values()), result.score)
    if network in UNCOVERED:
        assert any(UNCOVERED[network] in name for name in result.coverage.uncovered)
        with pytest.raises(attrib.UncoveredOperation):
            attrib.explain(attrib.wrap(net), x, attrib.LRP(preset), 2, strict=True)
    else:
        assert not result.coverage.uncovered
        torch.testing.assert_close(result.ledger["unaccounted"], torch.zeros(2).double(), atol=1e-9, rtol=0.0)


def test_deeplift_says_that_experts_are_chosen_otherwise_on_the_baseline() -> None:
    net, x = made(Routed)
    with pytest.raises(attrib.UnsupportedModel, match="takes another path on the baseline than on the input"):
        attrib.explain(attrib.wrap(net), x, "deeplift", 2)
