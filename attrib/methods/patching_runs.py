"""Runs of a model that patching compares: activations with their coefficients, and where gradients can be asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from attrib.coverage import Coverage
from attrib.errors import UnsupportedModel
from attrib.methods.base import Question
from attrib.patching.access import reading
from attrib.patching.places import Place
from attrib.patching.probing import structure_of
from attrib.rules.engine import Engine
from attrib.rules.spelled import unite_activations
from attrib.rules.table import Rules


@dataclass(frozen=True)
class Run:
    """One run of the model. score: (pairs,). coefficients: ∂ Σ score/∂a of each place, modified by rules if any."""

    score: Tensor
    values: dict[Place, Tensor]
    coefficients: dict[Place, Tensor] = dataclasses.field(default_factory=dict)
    coverage: Coverage | None = None


def plain_run(question: Question, places: Sequence[Place], x: Tensor, rules: Rules | None) -> Run:
    with torch.no_grad(), reading(question.twin, _inside(question, places)) as readings:
        score = question.scores(x)
    return Run(score, _with_embeddings(question, places, readings.values, x))


def graded_run(question: Question, places: Sequence[Place], x: Tensor, rules: Rules | None) -> Run:
    return linked_run(question, places, x, rules, keep=False)[0]


def linked_run(
    question: Question, places: Sequence[Place], x: Tensor, rules: Rules | None, keep: bool = True
) -> tuple[Run, dict[Place, GradientEdge]]:
    """A graded run, and where gradients between its places can be asked for; keep: whether its graph is needed on."""
    leaf = x.detach().requires_grad_()
    coverage = None
    with torch.enable_grad(), reading(question.twin, _inside(question, places)) as readings:
        if rules is None:
            score = question.scores(leaf.clone())
        else:
            unite_activations(question.twin)
            engine = Engine(rules, question.twin, x.shape, question.model.weight_cache, question.strict)
            with engine:
                score = question.scores(leaf.clone())
            coverage = Coverage(**engine.record.counts)
        values = _with_embeddings(question, places, readings.values, x)
        edges = {**readings.edges, **{p: get_gradient_edge(leaf) for p in places if p not in readings.values}}
        wanted = [place for place in places if place in edges]
        found = torch.autograd.grad(
            score.sum(), [edges[place] for place in wanted], retain_graph=keep, allow_unused=True
        )
    coefficients = {place: torch.zeros_like(values[place]) for place in places}
    coefficients |= {place: c for place, c in zip(wanted, found, strict=True) if c is not None}
    return Run(score.detach(), values, coefficients, coverage), edges


def _inside(question: Question, places: Sequence[Place]) -> list[Place]:
    """All but the word embeddings, which the model is given: their module may run on what it fills up alone."""
    embedding = embedding_of(question)
    return [place for place in places if place.path != embedding]


def _with_embeddings(
    question: Question, places: Sequence[Place], values: dict[Place, Tensor], x: Tensor
) -> dict[Place, Tensor]:
    """`values` with the word embeddings."""
    embedding = embedding_of(question)
    missing = [place for place in places if place not in values]
    for place in missing:
        if place.path != embedding:
            raise UnsupportedModel(f"module {place.path!r} of {question.model.name} did not run on these prompts")
    return values | dict.fromkeys(missing, x.detach())


def embedding_of(question: Question) -> str:
    return structure_of(question.model).embedding  # type: ignore[arg-type]  # pairs are of text models only


def corrupted_of(question: Question) -> Tensor:
    assert question.corrupted is not None, "`gathered` has looked"
    return question.corrupted
