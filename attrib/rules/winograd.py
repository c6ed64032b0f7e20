"""3×3 convolutions with fewer multiplications: Winograd's minimal filtering, for weights that are used many times.

An m×m piece of the output is A [(G g Gᵀ) ⊙ (Bᵀ d B)] Aᵀ of the (m+2)×(m+2) piece d of the input under it: (m+2)²
products a channel instead of 9 m². Lavin, Gray 2015, arXiv:1509.09308; the matrices are Toom's and Cook's for the
points of Barabasz et al. 2018, arXiv:1803.10986, with which rounding stays at some 1e-6 of the largest output.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import inf, prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from attrib.rules.pointwise import is_packed

# by the side m of the output's piece; infinity is one point more
_POINTS = {2: (0, 1, -1), 3: (0, 1, -1, 2), 4: (0, 1, -1, 2, -0.5)}
_SIDE = 3  # of the kernel
_TOGETHER = 600_000  # numbers of transformed input at once: they and what becomes of them stay in a core's cache
_LARGEST = 5_000_000  # numbers of transformed weights, which are kept in memory
# what one number costs in the time of a direct convolution's multiplication, measured on an AVX-512 core
_PRODUCT, _TRANSFORMED, _MOVED, _WEIGHT = 1.4, 1.75, 8, 12
_GAIN = 0.9


class Kernels(NamedTuple):
    """values: ((m+2)², in, out), the weights at every pair of points."""

    side: int
    values: Tensor


class _Transforms(NamedTuple):
    """Of flattened squares: inputs (n², n²), weights (n², 9), outputs (m², n²), for n = m + 2."""

    inputs: Tensor
    weights: Tensor
    outputs: Tensor


class _Tiling(NamedTuple):
    rows: int
    columns: int

    @classmethod
    def of(cls, side: int, height: int, width: int) -> _Tiling:
        return cls(-(-height // side), -(-width // side))


def minimal(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether `convolved` can compute the layer, or its transpose, of x."""
    plain = layer.kernel_size == (_SIDE, _SIDE) and layer.stride == layer.dilation == (1, 1) and layer.groups == 1
    return plain and is_packed(x) and not isinstance(layer.padding, str) and max(layer.padding) < _SIDE


def best_side(x: torch.Size, weight: torch.Size, padding: Sequence[int]) -> int | None:
    """The m with which a convolution of such x takes least; None: direct it takes less."""
    out, into = weight[:2]
    height, width = _outputs(x, padding)
    if min(height, width) < 1:  # whoever computes it says so
        return None
    reading = _WEIGHT * out * into
    direct = 9 * out * into * x[0] * height * width + 9 * reading
    costs = dict[int, float]()
    for side in _POINTS:
        tiling, points = _Tiling.of(side, height, width), (side + 2) ** 2
        moved = points * into + side**2 * out
        tile = _PRODUCT * points * into * out + (_TRANSFORMED * points + _MOVED) * moved
        costs[side] = x[0] * tiling.rows * tiling.columns * tile + points * reading
        if points * out * into > _LARGEST:
            costs[side] = inf
    side = min(costs, key=lambda side: costs[side])
    return side if costs[side] < _GAIN * direct else None


def _outputs(x: torch.Size, padding: Sequence[int]) -> tuple[int, int]:
    return x[2] + 2 * padding[0] - 2, x[3] + 2 * padding[1] - 2


def transformed(weight: Tensor, side: int) -> Kernels:
    """weight: (out, in, 3, 3)."""
    out, into = weight.shape[:2]
    values = _transforms(side).weights @ weight.permute(2, 3, 1, 0).reshape(_SIDE**2, into * out)
    return Kernels(side, values.view(-1, into, out))


def turned(weight: Tensor) -> Tensor:
    """The weights (in, out, 3, 3) whose convolution is the transpose of `weight`'s."""
    return weight.flip(2, 3).transpose(0, 1)


def convolved(x: Tensor, kernels: Kernels, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    """x (batch, in, height, width) with zeros around, channels innermost in memory as in what comes back."""
    side, batch = kernels.side, len(x)
    height, width = _outputs(x.shape, padding)
    tiling = _Tiling.of(side, height, width)
    padded = _padded(x, padding, tiling, side)
    out = kernels.values.shape[2]
    # not a view in the end, of which autograd would forbid changes in place behind a function of our own
    found = torch.empty((batch, out, height, width), dtype=x.dtype, memory_format=torch.channels_last)
    fits = height == tiling.rows * side and width == tiling.columns * side
    whole = found.permute(0, 2, 3, 1) if fits else x.new_empty(batch, tiling.rows * side, tiling.columns * side, out)
    y = whole.view(batch, tiling.rows, side, tiling.columns, side, out)
    together = max(_TOGETHER * torch.get_num_threads(), kernels.values.numel() // 4)  # else they are read often
    most = max(1, together // (tiling.columns * (side + 2) ** 2 * x.shape[1]))
    pictures, rows = max(1, most // tiling.rows), min(most, tiling.rows)
    for first in range(0, batch, pictures):
        for row in range(0, tiling.rows, rows):
            piece = y[first : first + pictures, row : row + rows]
            _fill(piece, padded[first : first + pictures, row * side :], kernels, bias)
    return found if fits else found.copy_(whole[:, :height, :width].permute(0, 3, 1, 2))


def unmoved(y: Tensor, x: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    """The outputs y of x, exact where a window sees zeros alone: rounding would move them off a ReLU's kink."""
    blank = (x.amax(1, keepdim=True) == 0) & (x.amin(1, keepdim=True) == 0)
    if not blank.any():
        return y
    top, left = padding
    seen = max_pool2d(pad((~blank).to(x.dtype), (left, left, top, top)), _SIDE, 1) > 0
    found = torch.where(seen, y, 0 if bias is None else bias.view(-1, 1, 1))
    return found.contiguous(memory_format=torch.channels_last)


def _padded(x: Tensor, padding: Sequence[int], tiling: _Tiling, side: int) -> Tensor:
    batch, into, height, width = x.shape
    top, left = padding
    padded = x.new_empty(batch, tiling.rows * side + 2, tiling.columns * side + 2, into)
    bottom, right = top + height, left + width
    for margin in (padded[:, :top], padded[:, bottom:], padded[:, top:bottom, :left], padded[:, top:bottom, right:]):
        margin.zero_()
    padded[:, top:bottom, left:right] = x.permute(0, 2, 3, 1)
    return padded


def _fill(y: Tensor, padded: Tensor, kernels: Kernels, bias: Tensor | None) -> None:
    """y (pictures, rows of tiles, m, columns of tiles, m, out) from the padded input, whose first row is y's."""
    side, points = kernels.side, kernels.side + 2
    pictures, rows, _, columns, _, out = y.shape
    into, how = padded.shape[3], _transforms(side)
    of_picture, of_row, of_column, _ = padded.stride()
    size = (points, points, pictures, rows, columns, into)
    stride = (of_row, of_column, of_picture, side * of_row, side * of_column, 1)
    tiles = padded.as_strided(size, stride, padded.storage_offset()).reshape(points**2, -1)
    products = torch.bmm((how.inputs @ tiles).view(points**2, -1, into), kernels.values)
    if bias is not None:  # the output's transform has a one everywhere for the point (1, 1)
        products[points + 1] += bias
    found = how.outputs @ products.view(points**2, -1)
    y.copy_(found.view(side, side, pictures, rows, columns, out).permute(2, 3, 0, 4, 1, 5))


@cache
def _transforms(side: int) -> _Transforms:
    return _Transforms(*(torch.kron(each.contiguous(), each.contiguous()).float() for each in _toom_cook(side)))


def _toom_cook(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bᵀ (n, n), G (n, 3), Aᵀ (m, n): a product of polynomials is known by its values at n points.

    Row p of Bᵀ is Π (x − q) over the other finite points q, which G divides by its value at p.
    """
    points, n = _POINTS[side], side + 2
    others = [[q for q in points if q != p] for p in points]
    inputs = [[*_with_roots(roots), 0.0] for roots in others] + [_with_roots(points)]
    values = torch.tensor([[float(p) ** power for power in range(n)] for p in points], dtype=torch.float64)
    infinity = torch.eye(n, dtype=torch.float64)  # it sees the highest power alone
    scales = torch.tensor([prod(p - q for q in roots) for p, roots in zip(points, others, strict=True)])
    weights = torch.cat([values[:, :_SIDE] / scales[:, None], infinity[:1, :_SIDE].flip(1)])
    outputs = torch.cat([values[:, :side], infinity[:1, :side].flip(1)])
    return torch.tensor(inputs, dtype=torch.float64), weights, outputs.t()


def _with_roots(roots: Sequence[float]) -> list[float]:
    """Coefficients of Π (x − q), from that of 1 upwards."""
    found = [1.0]
    for q in roots:
        found = [up - q * own for up, own in zip([0.0, *found], [*found, 0.0], strict=True)]
    return found
