"""Activation patching: the true effect of every site at every position, by running the model with it overwritten.

effect(n) = M(base run; n ← other run's activation) − M(base run), one position of one site at a time. It is the truth
that attribution patching and relevance patching estimate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from attrib.errors import InputError, UnknownName
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.pairs import DEFAULT_SITES, DIRECTIONS, Effects, Sites, found, of_rows, share, sites_of
from attrib.patching.exact import true_effects
from attrib.patching.probing import structure_of
from attrib.patching.prompt import Prompt
from attrib.patching.sites import PatchSite

_TOKENS_TOGETHER = 256  # of pairs whose patches run as one batch


@dataclass(frozen=True)
class ActivationPatching(Method):
    """True effects, (batch, site, position). Vig et al. 2020; Meng et al. 2022.

    With `only`, all other values are NaN, and parts["measured"] is True for those that were asked for.
    """

    name: ClassVar[str] = "activation_patching"
    applies_to: ClassVar[frozenset[str]] = frozenset({"pair"})
    single_pass: ClassVar[bool] = False
    card: ClassVar[Card] = Card(
        title="Activation patching",
        idea="What does the metric do when one site at one position holds the other prompt's activation?",
        formula="M(corrupted run; a ← a_clean) − M(corrupted run); noising: the two runs exchanged",
        reference="Vig et al. 2020, arXiv:2004.12265; Meng et al. 2022, arXiv:2202.05262",
        assumptions="Prompts agree token by token, so that positions mean the same in both.",
        misleads="A mixture of two runs may be a state that the model never is in. Components that back each other up "
        "seem unimportant one by one; noising and denoising answer different questions.",
        cost="one F for every site and position, of which only the layers and positions behind the patch are computed",
    )

    sites: Sites = setting(DEFAULT_SITES, "names or patterns of sites, such as resid_post.* or head.*.*")
    direction: str = setting(
        "denoising",
        "denoising: clean activations into the corrupted run; noising: corrupted ones into the clean run",
        choices=DIRECTIONS,
    )
    only: tuple[str, ...] = setting(
        (), "single entries to measure, such as resid_post.3@7 for position 7; empty: all positions", advanced=True
    )

    def explain(self, question: Question) -> Finding:
        if self.direction not in DIRECTIONS:
            raise UnknownName("direction", self.direction, DIRECTIONS)
        sites, wanted = sites_of(question, self.sites), _entries(self.only)
        unknown = [name for name, _ in wanted if name not in {site.name for site in sites}]
        if unknown:
            raise UnknownName("site among those asked for", unknown[0], [site.name for site in sites])
        behind = [position for _, position in wanted if position >= question.x.shape[1]]
        if behind:
            raise InputError(f"position {behind[0]} was asked for; the longest prompt has {question.x.shape[1]} tokens")
        if question.target.kind == "predicted":
            question.settle()
        finding = found(question, sites, lambda part: _true_effects(part, sites, wanted, self.direction))
        if not wanted:
            return finding
        measured = torch.zeros_like(finding.values, dtype=torch.bool)
        for site, position in wanted:
            measured[:, [s.name for s in sites].index(site), position : position + 1] = True
        return replace(finding, parts={**(finding.parts or {}), "measured": measured})


def _entries(only: Sequence[str]) -> list[tuple[str, int]]:
    """(site, position) of each entry."""
    matches = [(entry, re.fullmatch(r"(.+)@(\d+)", entry)) for entry in only]
    for entry, match in matches:
        if match is None:
            raise InputError(f"cannot read the entry {entry!r}; write site@position, such as resid_post.3@7")
    return [(match[1], int(match[2])) for _, match in matches if match]


@torch.no_grad()
def _true_effects(
    question: Question, sites: Sequence[PatchSite], wanted: Sequence[tuple[str, int]], direction: str
) -> Effects:
    values = question.x.new_full((len(question.x), len(sites), question.x.shape[1]), torch.nan)
    metrics: list[tuple[Tensor, Tensor]] = []
    notes: list[str] = []
    chosen = [(s, p) for s, site in enumerate(sites) for p in range(question.x.shape[1])
              if not wanted or (site.name, p) in wanted]  # fmt: skip
    entries = [(sites[s], p) for s, p in chosen]
    groups = _together(question)
    for done, rows in enumerate(groups):
        clean, corrupted = prompts_of(of_rows(question, rows))
        base, other = (corrupted, clean) if direction == "denoising" else (clean, corrupted)
        progress = share(question.on_progress, done, len(groups))
        true = true_effects(base, other, question.twin, entries, question.max_rows, progress)
        for row, effects in zip(rows.tolist(), true.effects, strict=True):
            values[row, [s for s, _ in chosen], [p for _, p in chosen]] = effects.to(values)
        metrics.append((true.other, true.base) if direction == "denoising" else (true.base, true.other))
        notes += true.notes
    order = torch.cat(groups).argsort()
    first, second = (torch.cat(run)[order] for run in zip(*metrics, strict=True))
    return Effects(values, first, second, notes=tuple(dict.fromkeys(notes)))


def _together(question: Question) -> list[Tensor]:
    """Pairs, all of one length, whose patches run as one batch: with equal extra inputs and read at the same place."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for row in range(len(question.x)):
        key = tuple((name, str(value[row].tolist())) for name, value in question.extra.items())
        alike.setdefault(key, []).append(row)
    tokens = question.x.shape[1]
    most = max(1, min(question.max_rows, _TOKENS_TOGETHER // tokens))
    layers = structure_of(question.model).layers  # type: ignore[arg-type]  # pairs are of text models only
    attentions = [attention for layer in layers for attention in layer.attentions]
    kinds = [(each.heads, *(part.columns for part in (each.keys, each.values) if part)) for each in attentions]
    ambiguous = {tokens, *(len(columns) for kind in kinds for columns in kind)}
    pieces = [piece for rows in alike.values() for piece in _pieces(rows, most, ambiguous - {0, 1})]
    return [torch.tensor(piece, device=question.x.device) for piece in pieces]


def _pieces(rows: list[int], most: int, unwanted: set[int]) -> Iterator[list[int]]:
    """Pieces of at most that size, none of an unwanted one."""
    while rows:
        size = next(n for n in range(min(most, len(rows)), 0, -1) if n not in unwanted)
        yield rows[:size]
        rows = rows[size:]


def prompts_of(alike: Question) -> tuple[Prompt, Prompt]:
    """The clean and the corrupted prompts of a question about pairs that are alike but for their tokens."""
    structure = structure_of(alike.model)  # type: ignore[arg-type]  # pairs are of text models only
    assert alike.corrupted is not None
    extra = {name: value[:1] for name, value in alike.extra.items()}
    first, second = (Prompt(alike.model, structure, x, extra, alike.target) for x in (alike.x, alike.corrupted))  # type: ignore[arg-type]
    return first, second
