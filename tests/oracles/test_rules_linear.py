"""Every rule for linear layers against its matrix code, with signed inputs and biases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import attrib
from attrib.rules.engine import Rules
from attrib.rules.linear import AlphaBeta, Epsilon, Gamma
from attrib.rules.stabiliser import Stabiliser
from tests.oracles.matrix_rules import (
    EPS,
    LAYERS,
    RULES,
    epsilon,
    gamma,
    lrp_zero,
    matrix_of,
    picture,
    pos,
    seeded,
)


def explained(net, x, rule, target=1):
    everywhere = Rules(dict.fromkeys(("conv", "conv_transpose", "linear", "first"), rule))
    return attrib.explain(attrib.wrap(net), x, attrib.LRP(preset="gradient", rules=everywhere), target)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("rule", RULES)
def test_one_layer(rule, layer):
    build, shape = LAYERS[layer]
    net, x = seeded(build()), picture(shape)
    if layer == "linear":
        x[x == 0] = 0.1  # see test_a_first_layer_behind_a_reshape
    ours, oracle = RULES[rule]
    w, b, connected, out = matrix_of(net[1] if isinstance(net, nn.Sequential) else net, shape)
    flat_x = x.numpy().reshape(-1)
    z = (w @ flat_x + b).reshape(out)
    relevance = np.zeros_like(z)
    relevance[1] = z[1]  # the explained class, summed over its positions
    expected = oracle(flat_x, w, b, relevance.reshape(-1), connected).reshape(x.shape[1:])
    values = explained(net, x, ours).values[0].numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("rule", [name for name in RULES if name not in ("z_box", "w_square", "flat")])
def test_two_layers(rule):
    """conv, ReLU, linear: relevance of the hidden layer goes on into the first."""
    ours, oracle = RULES[rule]
    net = seeded(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)))
    x = picture((3, 4, 4))
    w1, b1, c1, _ = matrix_of(net[0], (3, 4, 4))
    w2, b2, c2, _ = matrix_of(net[3], (64,))
    x0 = x.numpy().reshape(-1)
    x1 = pos(w1 @ x0 + b1)
    top = np.zeros(5)
    top[2] = (w2 @ x1 + b2)[2]
    expected = oracle(x0, w1, b1, oracle(x1, w2, b2, top, c2), c1).reshape(3, 4, 4)
    values = explained(net, x, ours, 2).values[0].numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("first", ["z_box", "w_square", "flat"])
def test_a_rule_for_the_first_layer_only(first):
    ours, oracle = RULES[first]
    net = seeded(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)))
    x = picture((3, 4, 4))
    w1, b1, c1, _ = matrix_of(net[0], (3, 4, 4))
    w2, b2, c2, _ = matrix_of(net[3], (64,))
    x0 = x.numpy().reshape(-1)
    x1 = pos(w1 @ x0 + b1)
    top = np.zeros(5)
    top[2] = (w2 @ x1 + b2)[2]
    expected = oracle(x0, w1, b1, epsilon(x1, w2, b2, top, c2), c1).reshape(3, 4, 4)
    table = Rules({"linear": Epsilon(EPS), "first": ours})
    values = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset="gradient", rules=table), 2).values[0].numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_z_box_without_bounds_takes_those_of_each_input():
    net = seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)))
    model, x = attrib.wrap(net), torch.stack([picture((3, 5, 5))[0], 3 * picture((3, 5, 5))[0]])
    together = attrib.explain(model, x, attrib.LRP("epsilon_gamma_box"), 1).values
    for values, one in zip(together, x, strict=True):
        own = attrib.LRP("epsilon_gamma_box", low=one.min(), high=one.max())
        torch.testing.assert_close(attrib.explain(model, one[None], own, 1).values[0], values)


@pytest.mark.parametrize("first", ["z_box", "w_square", "flat"])
def test_a_first_layer_behind_a_reshape(first):
    """There relevance has to pass as R/x, so that zeros cannot take their share; the ledger tells how much it was."""
    ours, oracle = RULES[first]
    net, x = seeded(nn.Sequential(nn.Flatten(), nn.Linear(48, 5))), picture((3, 4, 4))
    w, b, connected, _ = matrix_of(net[1], (48,))
    flat_x = x.numpy().reshape(-1)
    top = np.zeros(5)
    top[1] = (w @ flat_x + b)[1]
    expected = oracle(flat_x, w, b, top, connected)
    result = explained(net, x, ours)
    np.testing.assert_allclose(result.values.numpy().reshape(-1), np.where(flat_x == 0, 0, expected), rtol=1e-10)
    lost = result.ledger["zeros before the first layer"].item()
    assert lost == pytest.approx(expected[flat_x == 0].sum(), rel=1e-10) and lost != 0


def test_gamma_behind_a_layer_that_nothing_rectifies():
    """Outputs below zero whose coefficients all have one sign are not taken for rectified ones."""
    net = seeded(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(64, 5)))
    net[2].weight.data.abs_().neg_()
    x = picture((3, 4, 4))
    w1, b1, c1, _ = matrix_of(net[0], (3, 4, 4))
    w2, b2, c2, _ = matrix_of(net[2], (64,))
    x0 = x.numpy().reshape(-1)
    x1 = w1 @ x0 + b1
    top = np.zeros(5)
    top[2] = (w2 @ x1 + b2)[2]
    expected = gamma(x0, w1, b1, lrp_zero(x1, w2, b2, top, c2), c1).reshape(3, 4, 4)
    table = Rules({"conv": Gamma(0.25, EPS), "linear": Epsilon(0.0)})
    for sign in (1, -1):  # of the score, and so of every coefficient
        seen = attrib.explain(
            attrib.wrap(net), x, attrib.LRP("gradient", rules=table), lambda out, s=sign: s * out[:, 2]
        )
        np.testing.assert_allclose(
            seen.values[0].numpy(), sign * expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max()
        )


@pytest.mark.parametrize("wrong", [{"epsilon": -1.0}, {"epsilon": float("nan")}, {"how": "add"}, {"unit": "norm"}])
def test_a_stabiliser_that_makes_no_sense(wrong):
    with pytest.raises(attrib.InputError):
        Stabiliser(**wrong)


def test_settings_that_a_preset_does_not_have_are_refused():
    net, x = seeded(nn.Sequential(nn.Flatten(), nn.Linear(48, 5))), picture((3, 4, 4))
    for method in (attrib.LRP("gradient", bias="excluded"), attrib.LRP("beta_smooth", stabiliser=1e-3)):
        with pytest.raises(attrib.InputError, match="leave both"):
            attrib.explain(attrib.wrap(net), x, method, 1)
    with pytest.raises(attrib.InputError, match="absorbs, excluded"):
        attrib.explain(attrib.wrap(net), x, attrib.LRP("epsilon", bias="kept"), 1)


def test_residual_addition_shares_in_proportion():
    """y = a + b: R_a = R a/y, which in gradient form is no rule at all."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return (self.conv(x) + x).flatten(1)

    net, x = seeded(Residual()), picture((3, 3, 3))
    w, b, c, _ = matrix_of(net.conv, (3, 3, 3))
    x0 = x.numpy().reshape(-1)
    branch = w @ x0 + b
    top = np.zeros(27)
    top[7] = (branch + x0)[7]
    total = branch + x0
    expected = epsilon(x0, w, b, top * branch / total, c) + top * x0 / total
    values = explained(net, x, Epsilon(EPS), 7).values.numpy().reshape(-1)
    np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-12)


def test_average_pool_shares_in_proportion():
    net, x = seeded(nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4))), picture((3, 4, 4))
    pooled = nn.functional.avg_pool2d(x, 2).numpy().reshape(-1)
    w, b, c, _ = matrix_of(net[2], (12,))
    top = np.zeros(4)
    top[1] = (w @ pooled + b)[1]
    share = torch.tensor((epsilon(pooled, w, b, top, c) / pooled).reshape(1, 3, 2, 2))
    expected = x * share.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    values = explained(net, x, Epsilon(EPS)).values
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-12)


def test_alpha_and_beta_must_differ_by_one():
    with pytest.raises(ValueError, match="alpha - beta must be 1"):
        AlphaBeta(2.0, 2.0)
