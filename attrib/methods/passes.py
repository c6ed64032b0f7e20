"""What methods of many passes share: rows in pieces that fit into memory, a fast layout, and repeatable noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from attrib.methods.base import Question
from attrib.models.folding import fold_norms
from attrib.rules.arranged import arrange
from attrib.sites import survey

# bytes of the largest activation past which more rows cost a CPU more, in cache and allocations, than they save
_LARGEST_TENSOR = 2**24
# folding saves 6 % of a pass and costs as much as two of a large picture, however small the pictures are
_ENOUGH_TO_FOLD = 40 * 224 * 224


def pairs(question: Question, n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(pass, sample) of all n × batch rows, pass by pass, in pieces that one forward and backward may hold.

    Reports progress after each piece; n is any number of passes over every sample of the question.
    """
    batch = len(question.x)
    for start in range(0, n * batch, question.max_rows):
        piece = torch.arange(start, min(start + question.max_rows, n * batch), device=question.x.device)
        yield piece // batch, piece % batch
        question.on_progress((int(piece[-1]) + 1) / (n * batch))


def about(question: Question, x: Tensor, rows: Tensor) -> Question:
    """The same question about other inputs: row i of x is a variant of sample rows[i]."""
    target = question.target
    of_rows = dataclasses.replace(
        target,
        positive=None if target.positive is None else target.positive.to(rows.device)[rows],
        negative=None if target.negative is None else target.negative.to(rows.device)[rows],
    )
    chosen = rows.tolist()
    return dataclasses.replace(
        question,
        x=x,
        target=of_rows,
        extra={name: value[rows] for name, value in question.extra.items()},
        words=None if question.words is None else tuple(question.words[row] for row in chosen),
        token_ids=None if question.token_ids is None else tuple(question.token_ids[row] for row in chosen),
    )


def quick_rows(question: Question, most: int) -> int:
    """How many rows at once are quickest per row: on a CPU at most `most`, fewer where activations are large."""
    if question.x.device.type != "cpu":
        return question.max_rows
    if question.is_text:  # the hidden layer of a feed-forward block is four times as wide
        largest = 4 * question.x[0].numel() * question.x.element_size()
    else:
        largest = survey(question.model.module, question.twin, question.x).largest * question.x.element_size()
    return max(1, min(question.max_rows, most, _LARGEST_TENSOR // max(1, largest)))


def laid_out(question: Question, passes: int, most: int = 4) -> Question:
    """The same question for many passes: rows and memory layout that are quickest, `most` rows at once on a CPU.

    There, images and convolution weights go into channels_last where the model takes that, and BatchNorm into the
    convolution before it; texts stay as they are. The twin gets its own copies of the weights; values change by
    rounding only.
    """
    question = dataclasses.replace(question, max_rows=quick_rows(question, most))
    if question.is_text or question.x.device.type != "cpu" or question.x.dtype != torch.float32:
        return question
    normalises = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in question.twin.modules())
    if normalises and passes * question.x[:, 0].numel() >= _ENOUGH_TO_FOLD:
        fold_norms(question.twin, question.x[:1])
    if not question.takes_channels_last:
        return question
    if not arrange(question.twin):
        pack_weights(question.twin)
    return dataclasses.replace(question, x=question.x.contiguous(memory_format=torch.channels_last))


def pack_weights(twin: nn.Module) -> None:
    """Give the twin's convolutions copies of their weights in channels_last."""
    for module in twin.modules():
        weight = module._parameters.get("weight") if type(module) is nn.Conv2d else None
        if weight is not None:
            module._parameters["weight"] = weight.contiguous(memory_format=torch.channels_last)  # type: ignore[assignment]


def generator(seed: int, draw: int) -> torch.Generator:
    """A generator for one draw: the same numbers on every device, in every chunk and in every thread."""
    state = np.random.SeedSequence((seed, draw)).generate_state(1)[0]
    return torch.Generator().manual_seed(int(state))


def normal(seed: int, draws: Tensor, like: Tensor) -> Tensor:
    """Noise N(0, 1), (draws, …) shaped like a sample: draw i is the same whatever it is drawn together with.

    A text's noise is the same however much padding follows.
    """
    # always float64, so that float32 and float64 models see the same noise
    shape = tuple(like.shape[1:])
    if like.dim() == 3:  # drawn in blocks of 16, so that whole blocks begin alike whatever the length
        shape = (-(-shape[0] // 16) * 16, shape[1])
    each = [torch.randn(shape, generator=generator(seed, int(d)), dtype=torch.float64) for d in draws]
    return torch.stack(each)[:, : like.shape[1]].to(like.dtype).to(like.device)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """One number a row, (rows,), in a shape that multiplies `like`."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def value_range(x: Tensor, real: Tensor | None = None) -> Tensor:
    """max − min of each sample, (batch, 1, 1, 1) for pictures; real: where x is no padding."""
    high = x if real is None else x.masked_fill(~real, float("-inf"))
    low = x if real is None else x.masked_fill(~real, float("inf"))
    return per_row(high.flatten(1).amax(1) - low.flatten(1).amin(1), x)
