"""The rules of AttnLRP, CP-LRP and PA-LRP in relevance form, one operation at a time: slow, and nothing like ours.

Every operation makes a Node that knows how to split the relevance of its value among its parents (METHODS 4.1, with
no stabiliser); `spread` walks the nodes backwards. No gradient is taken anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Split = Callable[[Tensor], tuple[Tensor, ...]]


class Node:
    """A value, the nodes it came from, and how it splits its relevance among them."""

    def __init__(self, tape: list[Node], value: Tensor, parents: tuple[Node, ...] = (), split: Split | None = None):
        self.tape, self.value, self.parents, self.split = tape, value, parents, split
        self.relevance = torch.zeros_like(value)
        tape.append(self)

    def then(self, value: Tensor, split: Split, *others: Node) -> Node:
        return Node(self.tape, value, (self, *others), split)


def spread(top: Node, relevance: Tensor) -> None:
    """Give `top` its relevance and hand it down to everything it came from."""
    top.relevance = relevance
    for node in reversed(top.tape):
        if node.split is not None:
            for parent, part in zip(node.parents, node.split(node.relevance), strict=True):
                parent.relevance = parent.relevance + part


def over(relevance: Tensor, value: Tensor) -> Tensor:
    """R/z, and 0 where nothing is to be split."""
    return torch.where(relevance == 0, 0.0, relevance / torch.where(value == 0, 1.0, value))


def linear(x: Node, weight: Tensor, bias: Tensor | None = None) -> Node:
    """R_x = x ⊙ Wᵀ(R/z); the bias keeps its share."""
    z = x.value @ weight.T if bias is None else x.value @ weight.T + bias
    return x.then(z, lambda r: (x.value * (over(r, z) @ weight),))


def add(a: Node, b: Node) -> Node:
    z = a.value + b.value
    return a.then(z, lambda r: (a.value * over(r, z), b.value * over(r, z)), b)


def add_constant(a: Node, constant: Tensor) -> Node:
    z = a.value + constant
    return a.then(z, lambda r: (a.value * over(r, z),))


def product(a: Node, b: Node, share: float = 0.5) -> Node:
    """The uniform rule; share: of the first factor."""
    return a.then(a.value * b.value, lambda r: (share * r, (1 - share) * r), b)


def scaled(a: Node, factor: Tensor | float) -> Node:
    """Times a constant."""
    return a.then(a.value * factor, lambda r: (r,))


def matmul(a: Node, b: Node, share: float = 0.5) -> Node:
    """R_A = A ⊙ (R/2O)Bᵀ, R_B = B ⊙ Aᵀ(R/2O); share: of the first factor."""
    o = a.value @ b.value
    return a.then(o, lambda r: (
        share * a.value * (over(r, o) @ b.value.mT), (1 - share) * b.value * (a.value.mT @ over(r, o))
    ), b)  # fmt: skip


def softmax(x: Node) -> Node:
    """R_x = x ⊙ (R − s ΣR)."""
    s = x.value.softmax(-1)
    finite = torch.where(x.value.isinf(), 0.0, x.value)
    return x.then(s, lambda r: (finite * (r - s * r.sum(-1, keepdim=True)),))


def passed(x: Node, value: Tensor) -> Node:
    """The identity rule, of activations and RMSNorm."""
    return x.then(value, lambda r: (r,))


def layer_norm(x: Node, weight: Tensor, bias: Tensor, eps: float) -> Node:
    """y = (x − mean)/std·w + b is linear with std constant; b keeps its share."""
    v, n = x.value, x.value.shape[-1]
    std = (v.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
    centring = torch.eye(n, dtype=v.dtype) - 1 / n
    y = (v - v.mean(-1, keepdim=True)) / std * weight + bias
    return x.then(y, lambda r: (v * ((over(r, y) * weight / std) @ centring),))


def moved(x: Node, there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Node:
    """A permutation of the values, signs ignored on the way back."""
    return x.then(there(x.value), lambda r: (back(r),))


def heads(x: Node, n: int, repeat: int = 1) -> Node:
    """(batch, tokens, width) → (batch, n·repeat, tokens, width/n): each head `repeat` times."""
    batch, tokens, width = x.value.shape

    def back(r: Tensor) -> Tensor:
        grouped = r.reshape(batch, n, repeat, tokens, width // n).sum(2)
        return grouped.transpose(1, 2).reshape(batch, tokens, width)

    return moved(x, lambda v: v.view(batch, tokens, n, -1).transpose(1, 2).repeat_interleave(repeat, 1), back)


def joined(x: Node) -> Node:
    batch, n, tokens, width = x.value.shape
    return moved(
        x,
        lambda v: v.transpose(1, 2).reshape(batch, tokens, n * width),
        lambda r: r.view(batch, tokens, n, width).transpose(1, 2),
    )


def rotated(x: Node, cos: Node, sin: Node, share: float) -> Node:
    """x⊙cos + rot(x)⊙sin; share: of x in each product, 1 where positions are no source."""
    half = x.value.shape[-1] // 2

    def there(v: Tensor) -> Tensor:
        return torch.cat((-v[..., half:], v[..., :half]), -1)

    turned = moved(x, there, lambda r: torch.cat((r[..., half:], r[..., :half]), -1))
    wide = [Node(x.tape, c.value[:, None].expand_as(x.value), (c,), lambda r: (r.sum(1),)) for c in (cos, sin)]
    return add(product(x, wide[0], share), product(turned, wide[1], share))


def attention(q: Node, k: Node, v: Node, mask: Tensor, preset: str) -> Node:
    scores = scaled(matmul(q, moved(k, lambda t: t.mT, lambda r: r.mT)), q.value.shape[-1] ** -0.5)
    weights = softmax(add_constant(scores, mask))
    return matmul(weights, v, 0.5 if preset == "attn_lrp" else 0.0)
