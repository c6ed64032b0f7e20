"""Every rule for linear layers against ten lines of matrix code, in relevance form, with signed inputs and biases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import attrib
from attrib.rules.engine import Rules
from attrib.rules.first import Flat, WSquare, ZBox
from attrib.rules.linear import AlphaBeta, Epsilon, Gamma, ZPlus
from attrib.rules.stabiliser import Stabiliser

EPS = 1e-3  # large enough that forgetting it would show
LOW, HIGH = -3.0, 3.5


def pos(a):
    return np.maximum(a, 0)


def neg(a):
    return np.minimum(a, 0)


def s(z):
    return z + EPS * np.where(z >= 0, 1.0, -1.0)


def epsilon(x, w, b, r, connected):
    return x * (w.T @ (r / s(w @ x + b)))


def lrp_zero(x, w, b, r, connected):
    return x * (w.T @ (r / (w @ x + b)))


def gamma(x, w, b, r, connected, g=0.25):
    wp, wn, bp, bn = w + g * pos(w), w + g * neg(w), b + g * pos(b), b + g * neg(b)
    z = w @ x + b
    p = r * (z > 0) / s(wp @ pos(x) + wn @ neg(x) + bp)
    n = r * (z < 0) / s(wn @ pos(x) + wp @ neg(x) + bn)
    return pos(x) * (wp.T @ p + wn.T @ n) + neg(x) * (wn.T @ p + wp.T @ n)


def alpha_beta(x, w, b, r, connected, alpha=2.0, beta=1.0):
    s1 = r / s(pos(w) @ pos(x) + neg(w) @ neg(x) + pos(b))
    s2 = r / s(neg(w) @ pos(x) + pos(w) @ neg(x) + neg(b) - 1e-300)  # all zero counts as negative
    up = pos(x) * (pos(w).T @ s1) + neg(x) * (neg(w).T @ s1)
    down = pos(x) * (neg(w).T @ s2) + neg(x) * (pos(w).T @ s2)
    return alpha * up - beta * down


def z_plus(x, w, b, r, connected):
    return alpha_beta(x, w, b, r, connected, 1.0, 0.0)


def z_plus_without_bias(x, w, b, r, connected):
    return alpha_beta(x, w, 0 * b, r, connected, 1.0, 0.0)


def z_box(x, w, b, r, connected):
    low, high = np.full_like(x, LOW), np.full_like(x, HIGH)
    t = r / s(w @ x - pos(w) @ low - neg(w) @ high)
    return x * (w.T @ t) - low * (pos(w).T @ t) - high * (neg(w).T @ t)


def w_square(x, w, b, r, connected):
    return (w**2).T @ (r / s((w**2).sum(1) + b**2))


def flat(x, w, b, r, connected):
    return connected.T @ (r / s(connected.sum(1)))


RULES = {
    "epsilon": (Epsilon(EPS), epsilon),
    "lrp_zero": (Epsilon(0.0), lrp_zero),
    "gamma": (Gamma(0.25, EPS), gamma),
    "gamma_3": (Gamma(3.0, EPS), lambda *a: gamma(*a, g=3.0)),
    "z_plus": (ZPlus(EPS), z_plus),
    "z_plus_without_bias": (ZPlus(EPS, bias="excluded"), z_plus_without_bias),
    "alpha2_beta1": (AlphaBeta(2.0, 1.0, EPS), alpha_beta),
    "alpha1_beta0": (AlphaBeta(1.0, 0.0, EPS), z_plus),
    "z_box": (ZBox(torch.tensor(LOW), torch.tensor(HIGH), EPS), z_box),
    "w_square": (WSquare(EPS), w_square),
    "flat": (Flat(EPS), flat),
}


def matrix_of(layer: nn.Module, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    """(W, b, which entries are connections, output shape) of a layer on one input of `shape`, tap by tap."""
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    if isinstance(layer, nn.Linear):
        return weight, bias, np.ones_like(weight), (layer.out_features,)
    transposed = isinstance(layer, nn.ConvTranspose2d)
    with torch.no_grad():
        out = tuple(layer(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
    # a transposed convolution is a convolution from its output to its input, turned round
    big, small = (out, shape) if transposed else (shape, out)
    tall = np.zeros((*small, *big))
    seen = np.zeros_like(tall)
    per_group_big, per_group_small = big[0] // layer.groups, small[0] // layer.groups
    (sy, sx), (py, px), (dy, dx) = layer.stride, layer.padding, layer.dilation
    for o, i in itertools.product(range(small[0]), range(per_group_big)):
        channel = (o // per_group_small) * per_group_big + i
        for row, column, ky, kx in itertools.product(*map(range, (*small[1:], *weight.shape[2:]))):
            y, x = row * sy - py + ky * dy, column * sx - px + kx * dx
            if 0 <= y < big[1] and 0 <= x < big[2]:
                tall[o, row, column, channel, y, x] += weight[o, i, ky, kx]
                seen[o, row, column, channel, y, x] += 1
    flat_tall = tall.reshape(np.prod(small), np.prod(big))
    flat_seen = seen.reshape(flat_tall.shape)
    if transposed:
        flat_tall, flat_seen = flat_tall.T, flat_seen.T
    return flat_tall, np.repeat(bias, int(np.prod(out[1:]))), flat_seen, out


LAYERS = {
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), (3, 4, 4)),
    "conv": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 5, 4)),
    "conv 1x1": (lambda: nn.Conv2d(3, 4, 1), (3, 4, 4)),
    "conv strided, dilated, grouped": (lambda: nn.Conv2d(4, 6, 3, 2, 2, 2, groups=2), (4, 7, 6)),
    "conv depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 4, 4)),
    "transposed conv": (lambda: nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1), (3, 3, 3)),
}


def seeded(net: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return net.eval()


def picture(shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    """Signed, within the bounds of the z-box, with a few zeros."""
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).clamp(-2.9, 3.4)
    x[0, 0, 0, :2] = 0
    return x


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
