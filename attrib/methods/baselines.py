"""Baselines: the picture, or the text, that stands for 'nothing there'."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attrib.errors import InputError, UnknownName
from attrib.methods.base import Question
from attrib.methods.passes import generator

PICTURE_BASELINES = ("zero", "mean", "blur", "noise", "white", "black")
_TOKENS = ("pad", "mask", "unk")
TEXT_BASELINES = ("zero", *_TOKENS, "noise")
BASELINES = {"image": PICTURE_BASELINES, "text": TEXT_BASELINES}
Baseline = str | Tensor  # a name, or a tensor like one input or like all

BASELINE_HELP = {
    "image": "What stands for 'nothing there': zero (after preprocessing), mean (of each channel), blur, noise, "
    "white, black.",
    "text": "What stands for 'nothing there' at every token that is no special one: zero, or the embedding of "
    "pad, mask or unk, or noise (random tokens).",
}


def baseline_of(baseline: Baseline, question: Question, seed: int = 0) -> Tensor:
    """The baseline of every sample, shaped like question.x. A name means the same in every batch.

    Of texts, special tokens ([CLS], [SEP], a beginning of text) keep their own embedding, and so does padding.
    """
    x = question.x
    if isinstance(baseline, Tensor):
        return _given(baseline, question)
    _check_name(baseline, question)
    if question.is_text:
        return _keeping(question, _text_baseline(baseline, question, seed))
    if baseline == "zero":
        return torch.zeros_like(x)
    if baseline == "mean":
        return x.mean((2, 3), keepdim=True).expand_as(x).clone()
    if baseline == "blur":
        return blurred(x)
    low, high = _black_and_white(baseline, question)
    if baseline == "noise":
        uniform = torch.rand(tuple(x.shape[1:]), generator=generator(seed, 0), dtype=torch.float64)
        return (low + uniform.to(x.dtype).to(x.device) * (high - low)).expand_as(x)
    return (low if baseline == "black" else high).expand_as(x).clone()


def blurred(x: Tensor) -> Tensor:
    """x under a Gaussian with σ = a tenth of its shorter side, edges mirrored."""
    sigma = min(x.shape[2:]) / 10
    for dim in (2, 3):
        radius = min(int(3 * sigma + 0.5), x.shape[dim] - 1)
        offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
        kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).reshape((1, 1, -1, 1) if dim == 2 else (1, 1, 1, -1))
        padding = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
        padded = F.pad(x, padding, mode="reflect") if radius else x
        x = F.conv2d(padded, kernel.expand(x.shape[1], -1, -1, -1), groups=x.shape[1])
    return x


def equal_notes(x: Tensor, baseline: Tensor) -> tuple[str, ...]:
    """A note where the input is its own baseline, so that no difference can be explained."""
    same = (x == baseline).flatten(1).all(1).nonzero()[:, 0].tolist()
    if not same:
        return ()
    return (
        f"the baseline equals input {', '.join(map(str, same))}: there is no difference to explain; choose another",
    )


def special_tokens(question: Question) -> Tensor:
    """(batch, tokens): True where a token is none of the text, padding too."""
    x, real = question.x, question.real
    special = torch.zeros(x.shape[:2], dtype=torch.bool) if real is None else ~real[:, :, 0].cpu()
    if question.token_ids is not None:
        tokenizer = question.model.tokenizer  # type: ignore[union-attr]
        known = set(tokenizer.all_special_ids) - {getattr(tokenizer, "unk_token_id", None)}
        for row, ids in enumerate(question.token_ids):
            special[row, : len(ids)] |= torch.tensor([token in known for token in ids])
    return special.to(x.device)


def _keeping(question: Question, baseline: Tensor) -> Tensor:
    return torch.where(special_tokens(question)[:, :, None], question.x, baseline)


def _check_name(baseline: str, question: Question) -> None:
    fitting = TEXT_BASELINES if question.is_text else PICTURE_BASELINES
    if baseline not in (*PICTURE_BASELINES, *TEXT_BASELINES):
        raise UnknownName("baseline", baseline, fitting)
    if baseline not in fitting:
        kind = "texts" if question.is_text else "pictures"
        raise InputError(f"{baseline!r} is no baseline of {kind}; these are: {', '.join(fitting)}")


def _text_baseline(name: str, question: Question, seed: int) -> Tensor:
    x = question.x
    if name == "zero":
        return torch.zeros_like(x)
    model: Any = question.model
    if name == "noise":
        rows = len(model.embeddings.weight)
        # the same tokens at the beginning of a text, however long it is
        ids = torch.randint(rows, (x.shape[1],), generator=generator(seed, 0))
    else:
        known = {t: getattr(model.tokenizer, f"{t}_token_id", None) for t in _TOKENS}
        known = {t: i for t, i in known.items() if i is not None and i < len(model.embeddings.weight)}
        if name not in known:
            raise InputError(f"{model.name} has no {name} token; use {', '.join(['zero', *known, 'noise'])}")
        ids = torch.tensor([known[name]])
    with torch.no_grad():
        embedded: Tensor = model.embeddings(ids.to(x.device)).detach().to(x)
    return embedded.expand_as(x)


def _given(baseline: Tensor, question: Question) -> Tensor:
    x = question.x
    one = tuple(x.shape[1:])
    fits = baseline.dim() in (x.dim() - 1, x.dim()) and tuple(baseline.shape[1 - x.dim() :]) == one
    if not fits or (baseline.dim() == x.dim() and baseline.shape[0] not in (1, len(x))):
        names = TEXT_BASELINES if question.is_text else PICTURE_BASELINES
        raise InputError(
            f"a baseline of shape {tuple(baseline.shape)} does not fit inputs of shape {tuple(x.shape)}; "
            f"give {one}, or a name: {', '.join(names)}"
        )
    if not baseline.isfinite().all():
        raise InputError("the baseline holds NaN or infinite values")
    baseline = baseline.detach().to(x.dtype).to(x.device).expand_as(x).clone()
    return baseline if question.real is None else torch.where(question.real, baseline, x)


def _black_and_white(name: str, question: Question) -> tuple[Tensor, Tensor]:
    bounds = question.model.bounds()
    if bounds is not None:
        return bounds[0].to(question.x), bounds[1].to(question.x)
    if name == "noise":
        flat = question.x.flatten(1)
        return flat.amin(1)[:, None, None, None], flat.amax(1)[:, None, None, None]
    raise InputError(
        f"{question.model.name} has no preprocessing, so nobody knows what {name} is; "
        "give the baseline as a tensor, or use zero, mean, blur or noise"
    )
