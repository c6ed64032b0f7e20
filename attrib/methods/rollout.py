"""Attention rollout: where attention carries a token's content on its way through the layers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attrib.errors import NotApplicable
from attrib.methods.base import Card, Finding, Method, Question
from attrib.methods.baselines import special_tokens
from attrib.methods.passes import about
from attrib.rules.opened import OpenedAttention
from attrib.sites import survey


@dataclass(frozen=True)
class AttentionRollout(Method):
    """The row of Π_l (mean_h A_l + I) / rowsum that the score is read from. Abnar & Zuidema 2020."""

    name: ClassVar[str] = "attention_rollout"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    needs_attention: ClassVar[bool] = True
    memory_factor: ClassVar[float] = 0.7
    card: ClassVar[Card] = Card(
        title="Attention rollout",
        idea="If attention mixed tokens and nothing else happened, whose content would the last layer read?",
        formula="the read-out row of Π_l (mean_h A_l + I) / 2, from the last layer to the first",
        reference="Abnar, Zuidema 2020, arXiv:2005.00928",
        assumptions="Transformers only: every layer attends from all tokens to all tokens, heads count alike, and half "
        "of each token passes by the attention.",
        misleads="It is the same for every class: it never asks about the score. Values, signs and the feed-forward "
        "blocks are ignored, so a token may be looked at and not used.",
        cost="1 F, attention opened",
    )

    def explain(self, question: Question) -> Finding:
        return _by_length(question, gradients=False)


@dataclass(frozen=True)
class GradientAttentionRollout(Method):
    """The row of Π_l (I + mean_h (A_l ⊙ ∂f/∂A_l)⁺) that the score is read from. Chefer et al. 2021 (ICCV)."""

    name: ClassVar[str] = "gradient_attention_rollout"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    needs_attention: ClassVar[bool] = True
    memory_factor: ClassVar[float] = 2.0
    attention_copies: ClassVar[float] = 5.9  # measured, SmolLM2 at 256 to 768 tokens
    card: ClassVar[Card] = Card(
        title="Gradient attention rollout",
        idea="Which tokens does the score rise with, through attention that more of would help?",
        formula="the read-out row of Π_l (I + mean_h (A_l ⊙ ∂f/∂A_l)⁺) − I, from the last layer to the first",
        reference="Chefer, Gur, Wolf 2021, arXiv:2103.15679",
        assumptions="Transformers only: every layer attends from all tokens to all tokens, and what matters shows in "
        "the gradient of the attention weights.",
        misleads="Evidence against is cut off at every layer: a token that speaks against the class looks like one "
        "that says nothing. Its numbers add up to nothing in particular.",
        cost="1 F + 1 B, attention opened",
    )

    def explain(self, question: Question) -> Finding:
        return _by_length(question, gradients=True)


def _by_length(question: Question, gradients: bool) -> Finding:
    """Padded texts one by one, each without its padding; everything else at once."""
    real = question.real
    if real is None:
        return _rolled(question, gradients)
    if question.target.kind == "predicted":
        question.settle()
    found, values = [], question.x.new_zeros(question.x.shape[:2])
    for row, length in enumerate(real[:, :, 0].sum(1).tolist()):
        which = torch.tensor([row], device=question.x.device)
        alone = about(question, question.x[which, :length], which)
        own = {k: v[:, :length] if v.dim() > 1 else v for k, v in alone.extra.items() if k != "attention_mask"}
        found.append(_rolled(dataclasses.replace(alone, extra=own), gradients))
        values[row, :length] = found[-1].values[0]
        question.on_progress((row + 1) / len(values))
    notes = tuple(dict.fromkeys(note for finding in found for note in finding.notes))
    return dataclasses.replace(found[0], values=values, score=torch.cat([f.score for f in found]), notes=notes)


def _rolled(question: Question, gradients: bool) -> Finding:
    x = question.x.detach().clone().requires_grad_(gradients)
    watch = OpenedAttention(len(x), keep_graph=gradients)
    with torch.set_grad_enabled(gradients):
        with watch:
            # in place on a leaf is forbidden
            score = question.scores(x.clone())
        _check(question, watch)
        steps = _helpful(watch.weights, score) if gradients else [_mixed(a[:, 0]) for a in watch.weights]
    steps = [step.to(x.dtype) for step in steps]  # a model may compute its softmax in another
    rolled = steps[0]
    for step in steps[1:]:
        rolled = step @ rolled
    causal = len(rolled[0]) > 1 and all(not a.detach().triu(1).any() for a in watch.weights)
    if gradients:
        rolled = rolled - torch.eye(rolled.shape[-1]).to(rolled)
    if question.is_text:
        values = _row_of_text(question, rolled, causal)
        return Finding(values, score.detach(), "tokens", signed=False, notes=_notes(watch))
    return Finding(_map_of_picture(question, rolled), score.detach(), "layer", signed=False, notes=_notes(watch))


def _notes(watch: OpenedAttention) -> tuple[str, ...]:
    notes = [f"attention of {len(watch.weights)} layers was rolled out"]
    if watch.opened:
        notes.append("fused attention was opened to read its weights")
    if watch.elsewhere:
        notes.append("attention that is not from all tokens to all tokens was left out")
    return tuple(notes)


def _mixed(attention: Tensor) -> Tensor:
    """(A + I) with rows that sum to 1."""
    mixed = attention + torch.eye(attention.shape[-1]).to(attention)
    return mixed / mixed.sum(-1, keepdim=True)


def _helpful(weights: list[Tensor], score: Tensor) -> list[Tensor]:
    """I + mean_h (A ⊙ ∂f/∂A)⁺ of every layer; layers that the score does not hang on are I."""
    gradients = torch.autograd.grad(score.sum(), weights, allow_unused=True)
    eye = torch.eye(weights[0].shape[-1]).to(weights[0])
    return [
        eye.expand(len(a), -1, -1) if g is None else eye + (a.detach() * g).clamp_min(0).mean(1)
        for a, g in zip(weights, gradients, strict=True)
    ]


def _check(question: Question, watch: OpenedAttention) -> None:
    lengths = {a.shape[-1] for a in watch.weights}
    if not watch.weights and not watch.elsewhere:
        raise NotApplicable(
            f"{question.model.name} has no attention between tokens, so there is nothing to roll out; lrp, "
            "integrated_gradients, occlusion and others need none"
        )
    windows = any(shape[0] != watch.batch for shape in watch.elsewhere)
    if windows or len(lengths) != 1 or (question.is_text and lengths != {question.x.shape[1]}):
        raise NotApplicable(
            f"{question.model.name} does not attend from all tokens to all tokens in every layer, which rollout needs"
        )


def _row_of_text(question: Question, rolled: Tensor, causal: bool) -> Tensor:
    """(batch, tokens): the row of the token that the score is read at, as far as structure tells."""
    batch, tokens = rolled.shape[:2]
    read = question.extra.get("read_at")
    if read is not None:
        return rolled[torch.arange(batch, device=rolled.device), read]
    if causal:
        return rolled[:, tokens - 1]
    starts_special = question.token_ids is None or bool(special_tokens(question)[:, 0].all())
    return rolled[:, 0] if starts_special else rolled.mean(1)


def _map_of_picture(question: Question, rolled: Tensor) -> Tensor:
    """(batch, height, width): the class token's row, or the mean row where there is none, on the patches' grid."""
    seen = survey(question.model.module, question.twin, question.x)
    grid = seen.grid((1, rolled.shape[-1], 1), "attention")
    row = rolled[:, 0] if grid.prefix else rolled.mean(1)
    return row[:, grid.prefix :].reshape(len(row), grid.height, grid.width)
