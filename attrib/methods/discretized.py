"""Integrated gradients of texts along words: the path from a baseline to each token is bent past real embeddings.

Halfway between a word and a baseline there is no word, and a model was never trained there. Each token's path goes
over words near it that lie, in as many dimensions as possible, between the token and its baseline (anchors); in the
others an anchor is moved between them, so that the path never turns back. Greedy search and monotonisation as in
Sanyal, Ren 2021, arXiv:2108.13654, section 3; their sum is the left Riemann one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attrib.methods.base import Question
from attrib.methods.passes import pairs

NEIGHBOURS = 500  # of a word, which its anchor is chosen from, as the authors'
_TOKENS_AT_ONCE = 16


def word_paths(vocabulary: Tensor, x: Tensor, baseline: Tensor, anchors: int) -> Tensor:
    """(anchors + 2, batch, tokens, width): baseline, anchors, x. vocabulary: (words, width)."""
    path = x.new_empty(anchors + 2, *x.shape)
    path[:] = x  # where the baseline is the token itself nothing moves
    moving = (x != baseline).any(2)
    for chosen in moving.nonzero().split(_TOKENS_AT_ONCE):
        rows, tokens = chosen.T
        path[:, rows, tokens] = _of_tokens(vocabulary, x[rows, tokens], baseline[rows, tokens], anchors)
    return path


def refined(path: Tensor) -> Tensor:
    """The path with the middle of each of its steps."""
    finer = path.new_empty(2 * len(path) - 1, *path.shape[1:])
    finer[::2], finer[1::2] = path, (path[1:] + path[:-1]) / 2
    return finer


def along(question: Question, path: Tensor, left: bool = False) -> Tensor:
    """Σ_k ∂f/∂x(p_k) ⊙ (p_{k+1} − p_{k−1}) / 2, the trapezoid rule; left: Σ_k ∂f/∂x(p_k) ⊙ (p_{k+1} − p_k)."""
    steps = torch.zeros_like(path)
    apart = path[1:] - path[:-1]
    if left:
        steps[:-1] = apart
    else:
        steps[:-1] += apart / 2
        steps[1:] += apart / 2
    total = torch.zeros_like(question.x)
    for point, rows in pairs(question, len(path)):
        _, gradient = question.gradient(path[point, rows], rows)
        total.index_add_(0, rows, gradient * steps[point, rows])
    return total


def _of_tokens(vocabulary: Tensor, x: Tensor, baseline: Tensor, anchors: int) -> Tensor:
    """(anchors + 2, tokens, width) for tokens x, (tokens, width)."""
    words = _anchors(vocabulary, x, baseline, anchors)
    points = [x]
    for word in words:
        points.append(monotonised(word, points[-1], baseline, anchors))
    return torch.stack([baseline, *reversed(points)])


def _anchors(vocabulary: Tensor, x: Tensor, baseline: Tensor, anchors: int) -> list[Tensor]:
    """One word after the other, (tokens, width) each: the neighbour that monotonising moves least; none comes twice."""
    sizes = vocabulary.square().sum(1)
    taken = _same(vocabulary, sizes, x) | _same(vocabulary, sizes, baseline)
    word, found, goes_on = x, list[Tensor](), torch.ones(len(x), 1, dtype=torch.bool, device=x.device)
    for _ in range(anchors):
        distances = _distances(vocabulary, sizes, word)
        near = distances.topk(min(NEIGHBOURS, len(vocabulary)), 1, largest=False).indices
        candidates = vocabulary[near]
        moved = monotonised(candidates, word[:, None], baseline[:, None], anchors)
        cost = (candidates - moved).square().sum(2).masked_fill(taken.gather(1, near), float("inf"))
        best = cost.argmin(1, keepdim=True)
        chosen = near.gather(1, best)
        goes_on = (
            goes_on & cost.gather(1, best).isfinite()
        )  # else every neighbour is on the path already: it ends there
        word = torch.where(goes_on, vocabulary[chosen[:, 0]], baseline)
        taken.scatter_(1, chosen, True)
        found.append(word)
    return found


def _distances(vocabulary: Tensor, sizes: Tensor, word: Tensor) -> Tensor:
    """(tokens, words): squared distances."""
    return (sizes - 2 * word @ vocabulary.T + word.square().sum(1, keepdim=True)).clamp_min(0)


def _same(vocabulary: Tensor, sizes: Tensor, word: Tensor) -> Tensor:
    """(tokens, words): whether they are the same word, up to the rounding of their distance."""
    return _distances(vocabulary, sizes, word) <= 1e-4 * (sizes + word.square().sum(1, keepdim=True))


def monotonised(word: Tensor, before: Tensor, baseline: Tensor, anchors: int) -> Tensor:
    """`word`, with each dimension that is not between `before` and `baseline` one small step from `before` instead."""
    between = (word - before) * (word - baseline) <= 0
    return torch.where(between, word, before - (before - baseline) / anchors)
