"""Edges scored at once: what a receiver's input would pass on of each sender's change.

score(u → v) = Σ over tokens and width of (a_u^clean − a_u^corrupted) ⊙ C(input of v), with a_u what u adds to the
residual stream and C(input of v) the part of the stream's coefficient that comes back through v alone (Syed, Rager,
Conmy 2023, arXiv:2310.10348; with LRP coefficients, Jafari et al. 2025), where norms lie between u and v handed back
through those alone. One forward and backward per run, and one backward through a norm and a projection for each
receiver.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from attrib.errors import InputError
from attrib.methods.base import Finding, Question
from attrib.methods.pairs import DEFAULT_SITES, Effects, Sites, found_edges
from attrib.methods.patching_runs import Run, linked_run, plain_run
from attrib.patching.course import passed_back
from attrib.patching.edges import EdgeGraph, Receiver, edge_graph
from attrib.patching.places import Place
from attrib.patching.probing import structure_of
from attrib.patching.sending import check_course, contributions, output_matrices
from attrib.rules.table import Rules

_NUMBERS_AT_ONCE = 2**26  # of what all senders add to the stream


def scored_edges(question: Question, rules: Rules | None, direction: str, sites: Sites) -> Finding:
    """All edges of the question's model. Raises UnsupportedModel where its stream is no plain sum.

    InputError where `sites` were chosen, which edges are not.
    """
    if sites != DEFAULT_SITES:
        raise InputError(f"edges are scored between all heads and MLPs; sites = {sites!r} chooses none: leave it out")
    graph = edge_graph(structure_of(question.model))  # type: ignore[arg-type]  # pairs are of text models only
    at_once = max(1, _NUMBERS_AT_ONCE // (len(graph.senders) * question.x[0].numel()))
    return found_edges(question, graph, lambda part: estimated_edges(part, graph, rules, direction), at_once)


def estimated_edges(question: Question, graph: EdgeGraph, rules: Rules | None, direction: str) -> Effects:
    """First-order effects (pairs, sender, receiver); rules: the table of the backward pass, None for the gradient."""
    assert question.corrupted is not None, "`gathered` has looked"
    denoising = direction == "denoising"
    places = list(dict.fromkeys([*graph.places, *(r.site.place for r in graph.receivers if r.site is not None)]))
    if denoising:  # the clean run comes first: on it a target that was left open is settled
        clean = other = plain_run(question, places, question.x, None)
        corrupted = base = (linked := linked_run(question, places, question.corrupted, rules))[0]
    else:
        clean = base = (linked := linked_run(question, places, question.x, rules))[0]
        corrupted = other = plain_run(question, places, question.corrupted, None)
    for run in (base, other):
        check_course(graph, question.twin, run.values)
    values = _scores(question, graph, base, other, linked[1])
    return Effects(values, clean.score, corrupted.score, base.coverage)


def _scores(question: Question, graph: EdgeGraph, base: Run, other: Run, links: dict[Place, GradientEdge]) -> Tensor:
    """(pairs, sender, receiver), NaN where there is no edge; half precision in float32."""
    rows = len(question.x)
    differences = {place: _wide(other.values[place]) - _wide(base.values[place]) for place in base.values}
    matrices = [None if matrix is None else _wide(matrix) for matrix in output_matrices(question.twin, graph)]
    change = contributions(graph, matrices, differences, rows).flatten(2)
    values = change.new_full((rows, len(graph.senders), len(graph.receivers)), torch.nan)
    for numbers in _together(graph):
        own = [_of_input(graph.receivers[i], base, links) for i in numbers]
        for senders, passed in passed_back(graph.receivers[numbers[0]].course, question.twin, own, links, base.values):
            coefficients = torch.stack([_wide(c).reshape(rows, -1) for c in passed], 2)
            values[:, senders, numbers] = change[:, senders] @ coefficients
        question.on_progress(min(1.0, (numbers[-1] + 1) / len(graph.receivers)))
    return values


def _together(graph: EdgeGraph) -> Iterator[list[int]]:
    """Receivers that read the stream at the same place."""
    groups: dict[Place, list[int]] = {}
    for i, receiver in enumerate(graph.receivers):
        groups.setdefault(receiver.stream, []).append(i)
    yield from groups.values()


def _of_input(receiver: Receiver, run: Run, links: dict[Place, GradientEdge]) -> Tensor:
    """The stream's coefficient that comes back through this receiver alone, shaped like the stream."""
    if receiver.name == "logits":
        return run.coefficients[receiver.stream]
    zero = torch.zeros_like(run.values[receiver.stream])
    if receiver.made is not None:
        place = receiver.made
        coefficient = run.coefficients[place]
    else:
        assert receiver.site is not None, "all inputs but the logits have one or the other"
        place, part = receiver.site.place, receiver.site.part
        coefficient = torch.zeros_like(run.coefficients[place])
        coefficient[..., part] = run.coefficients[place][..., part]
    if place not in links or receiver.stream not in links or not bool(coefficient.any()):
        return zero
    (found,) = torch.autograd.grad(
        [links[place]], [links[receiver.stream]], [coefficient], retain_graph=True, allow_unused=True
    )
    return zero if found is None else found


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
