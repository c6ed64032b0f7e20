"""What methods on pairs of prompts share: rows that one forward takes together, and effects as a finding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attrib.coverage import Coverage
from attrib.errors import InputError, TargetError
from attrib.methods.base import Finding, Question
from attrib.methods.passes import about
from attrib.patching.edges import EdgeGraph
from attrib.patching.probing import structure_of
from attrib.patching.sites import PatchSite, select, usual

Sites = str | tuple[str, ...]
DIRECTIONS = ("denoising", "noising")
DEFAULT_SITES = ("resid_post.*", "attn_out.*", "mixer_out.*", "mlp_out.*")  # those that the model has


@dataclasses.dataclass(frozen=True)
class Effects:
    """Effects of some pairs. values: (pairs, site, position); clean, corrupted: (pairs,) the metric of both runs."""

    values: Tensor
    clean: Tensor
    corrupted: Tensor
    coverage: Coverage | None = None
    notes: tuple[str, ...] = ()


def sites_of(question: Question, patterns: Sites) -> tuple[PatchSite, ...]:
    """The sites of the question's model that the patterns name."""
    structure = structure_of(question.model)  # type: ignore[arg-type]  # pairs are of text models only
    return select(structure, usual(structure, patterns) if patterns == DEFAULT_SITES else patterns)


def found(question: Question, sites: Sequence[PatchSite], effects: Callable[[Question], Effects]) -> Finding:
    """What `effects` finds for all pairs of the question, asked for pairs of one length at a time, without padding."""
    together = gathered(question, effects, question.x.shape[1])
    return dataclasses.replace(_finding(together), sites=tuple(site.name for site in sites))


def found_edges(question: Question, graph: EdgeGraph, effects: Callable[[Question], Effects], at_once: int) -> Finding:
    """The same for effects (pairs, sender, receiver), NaN where there is no edge; of `at_once` pairs at a time."""
    finding = _finding(gathered(question, effects, len(graph.receivers), at_once))
    exists = graph.exists.to(finding.values.device).expand_as(finding.values)
    return dataclasses.replace(
        finding,
        kind="edges",
        sites=graph.senders,
        receivers=tuple(receiver.name for receiver in graph.receivers),
        parts={**(finding.parts or {}), "measured": exists},
    )


def gathered(
    question: Question, effects: Callable[[Question], Effects], width: int, at_once: int | None = None
) -> Effects:
    """Effects of all pairs; width: of their last axis, up to which shorter ones are filled with zeros."""
    if question.corrupted is None:
        raise InputError("this method compares two prompts; give attrib.pair(clean, corrupted)")
    _check_answers(question)
    groups = [piece for rows in rows_alike(question) for piece in rows.split(at_once or len(rows))]
    if len(groups) == 1 and question.real is None:
        return effects(question)
    if question.target.kind == "predicted":
        question.settle()
    parts = []
    for done, rows in enumerate(groups):
        alone = of_rows(question, rows)
        alone.on_progress = share(question.on_progress, done, len(groups))
        parts.append(effects(alone))
        question.on_progress((done + 1) / len(groups))
    values = parts[0].values.new_zeros(len(question.x), parts[0].values.shape[1], width)
    for rows, part in zip(groups, parts, strict=True):
        values[rows, :, : part.values.shape[2]] = part.values
    order = torch.cat(groups).argsort()
    clean, corrupted = (torch.cat([getattr(p, run) for p in parts])[order] for run in ("clean", "corrupted"))
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return Effects(values, clean, corrupted, parts[0].coverage, notes)


def rows_alike(question: Question) -> list[Tensor]:
    """Groups of rows that one forward takes at once: of one length; one by one where the model takes them so."""
    rows = torch.arange(len(question.x), device=question.x.device)
    config = getattr(question.model.module, "config", None)
    if getattr(question.model, "task", "") == "classification" and getattr(config, "pad_token_id", None) is None:
        return list(rows.split(1))
    if question.real is None:
        return [rows]
    lengths = question.real[:, :, 0].sum(1)
    return [(lengths == length).nonzero()[:, 0] for length in lengths.unique().tolist()]


def of_rows(question: Question, rows: Tensor) -> Question:
    """The question about these rows alone, all of one length, without padding."""
    length = question.x.shape[1] if question.real is None else int(question.real[rows[0]].sum())
    alone = about(question, question.x[rows, :length], rows)
    extra = {k: v[:, :length] if v.dim() > 1 else v for k, v in alone.extra.items() if k != "attention_mask"}
    corrupted = None if question.corrupted is None else question.corrupted[rows, :length]
    return dataclasses.replace(alone, extra=extra, corrupted=corrupted, on_progress=lambda fraction: None)


def share(on_progress: Callable[[float], None], done: int, total: int) -> Callable[[float], None]:
    """Progress of one part of `total`, of which `done` are done."""
    return lambda fraction: on_progress((done + fraction) / total)


def _finding(effects: Effects) -> Finding:
    equal = (effects.clean == effects.corrupted).nonzero()[:, 0].tolist()
    note = f"the metric of pair {', '.join(map(str, equal[:5]))} is the same in both runs: effects are no share of it"
    return Finding(
        effects.values,
        effects.clean - effects.corrupted,
        kind="sites",
        coverage=effects.coverage,
        parts={"metric_clean": effects.clean, "metric_corrupted": effects.corrupted},
        notes=(*effects.notes, *([note] if equal else [])),
    )


def _check_answers(question: Question) -> None:
    target = question.target
    if target.kind == "difference" and target.positive is not None and target.negative is not None:
        same = (target.positive == target.negative).nonzero()[:, 0].tolist()
        if same:
            name = question.model.label_of(int(target.positive[same[0]]))
            raise TargetError(
                f"answer and wrong answer of pair {same[0]} are both {name!r}: their difference is always 0"
            )
