"""Every rule for linear layers in ten lines of matrix code, in relevance form, and layers as such matrices."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn

from attrib.rules.first import Flat, WSquare, ZBox
from attrib.rules.linear import AlphaBeta, Epsilon, Gamma, ZPlus

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
