"""Patching by relevance and by gradient: every site's effect estimated at once from two forwards and one backward.

The effect of putting the clean run's activation into the corrupted run is estimated to first order,
â(n) = Σ (a_clean − a_corrupted) ⊙ C(n): with C the metric's gradient this is attribution patching, with C the LRP
coefficients of RelP's rules it is relevance patching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attrib.errors import InputError, UnknownName
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.edge_patching import scored_edges
from attrib.methods.pairs import DEFAULT_SITES, DIRECTIONS, Effects, Sites, found, sites_of
from attrib.methods.passes import about, pairs, per_row
from attrib.methods.patching_runs import corrupted_of, embedding_of, graded_run, plain_run
from attrib.patching.access import writing
from attrib.patching.places import Place
from attrib.patching.sites import PatchSite
from attrib.patching.summing import summed
from attrib.rules.relp import ATTENTION, MODES, relp_rules
from attrib.rules.table import Rules


@dataclass(frozen=True)
class RelP(Method):
    """Effects of all sites, (batch, site, position), by LRP coefficients of the corrupted run. Jafari et al. 2025.

    With `edges`, of all edges instead, (batch, sender, receiver): see `patching.edges` for their names.
    """

    name: ClassVar[str] = "relp"
    applies_to: ClassVar[frozenset[str]] = frozenset({"pair"})
    memory_factor: ClassVar[float] = 1.5
    card: ClassVar[Card] = Card(
        title="Relevance patching (RelP)",
        idea="Which layers, positions and heads carry the difference between two prompts?",
        formula="Σ (a_clean − a_corrupted) ⊙ C, C = R/a under LRP rules on the corrupted run",
        reference="Jafari et al. 2025, arXiv:2508.21258",
        assumptions="The rules' local linear model holds between the two runs; prompts agree token by token.",
        misleads="It is an estimate: how well it agrees with true activation patching differs by model and kind of "
        "site, and plain gradients are sometimes closer. Check the strongest sites by activation patching.",
        cost="2 F + 1 B for all sites",
    )

    sites: Sites = setting(DEFAULT_SITES, "names or patterns of sites, such as resid_post.* or head.*.*")
    mode: str = setting(
        "relp",
        "relp: all rules in force; published: the authors' stabilised activation rule; published_late: activations "
        "keep their gradient, as when the authors' switch is set after loading",
        choices=tuple(MODES),
        advanced=True,
    )
    attention: str = setting(
        "gradient",
        "gradient: attention keeps its ordinary gradient; constant: its weights count as constants, so that "
        "relevance is conserved",
        choices=tuple(ATTENTION),
        advanced=True,
    )
    edges: bool = setting(
        False, "score the edges between heads and MLPs instead of sites: (batch, sender, receiver)", advanced=True
    )

    def explain(self, question: Question) -> Finding:
        rules = relp_rules(self.mode, self.attention)
        if self.edges:
            return scored_edges(question, rules, "denoising", self.sites)
        sites = sites_of(question, self.sites)
        return found(question, sites, lambda part: estimated(part, sites, rules, "denoising"))


@dataclass(frozen=True)
class AttributionPatching(Method):
    """Effects of all sites, (batch, site, position), by the metric's gradient. Nanda 2023; Syed et al. 2023.

    With `edges`, edge attribution patching (EAP): of all edges instead, (batch, sender, receiver).
    """

    name: ClassVar[str] = "attribution_patching"
    applies_to: ClassVar[frozenset[str]] = frozenset({"pair"})
    memory_factor: ClassVar[float] = 1.5
    card: ClassVar[Card] = Card(
        title="Attribution patching",
        idea="Activation patching to first order: what would the metric do if a site came from the other prompt?",
        formula="Σ (a_clean − a_corrupted) ⊙ ∂M/∂a; integrated: ∂M/∂a averaged over a_corrupted + k/N·difference",
        reference="Nanda 2023, neelnanda.io; Syed, Rager, Conmy 2023, arXiv:2310.10348; Marks et al. 2024, "
        "arXiv:2403.19647",
        assumptions="The metric is nearly linear in the site between the two runs; prompts agree token by token.",
        misleads="Gradients of norms and saturated attention can be far from true effects, above all in the residual "
        "stream of early layers and in MLPs.",
        cost="2 F + 1 B for all sites; integrated: N (F + B) for every tensor",
    )

    sites: Sites = setting(DEFAULT_SITES, "names or patterns of sites, such as resid_post.* or head.*.*")
    integrated: int = setting(
        0, "steps on the way from one run's activation to the other's, tensor by tensor; 0: none", low=0, high=100
    )
    direction: str = setting(
        "denoising",
        "denoising: clean activations into the corrupted run; noising: corrupted ones into the clean run",
        choices=DIRECTIONS,
    )
    edges: bool = setting(
        False, "score the edges between heads and MLPs instead of sites: (batch, sender, receiver)", advanced=True
    )

    def explain(self, question: Question) -> Finding:
        if self.direction not in DIRECTIONS:
            raise UnknownName("direction", self.direction, DIRECTIONS)
        if self.integrated < 0:
            raise InputError(f"integrated = {self.integrated}: give a number of steps, or 0 for one gradient")
        if self.edges and self.integrated:
            raise InputError("edges are scored by one gradient; leave integrated at 0")
        if self.edges:
            return scored_edges(question, None, self.direction, self.sites)
        sites = sites_of(question, self.sites)
        if self.integrated:
            return found(question, sites, lambda part: integrated(part, sites, self.integrated, self.direction))
        return found(question, sites, lambda part: estimated(part, sites, None, self.direction))


def estimated(question: Question, sites: Sequence[PatchSite], rules: Rules | None, direction: str) -> Effects:
    """First-order effects of all sites; rules: the table of the backward pass, None for the plain gradient."""
    places = list(dict.fromkeys(site.place for site in sites))
    denoising = direction == "denoising"
    # the clean run comes first: on it a target that was left open is settled
    clean = (plain_run if denoising else graded_run)(question, places, question.x, rules)
    corrupted = (graded_run if denoising else plain_run)(question, places, corrupted_of(question), rules)
    base, other = (corrupted, clean) if denoising else (clean, corrupted)
    differences = {place: other.values[place] - base.values[place] for place in places}
    values = summed(sites, differences, base.coefficients, *question.x.shape[:2])
    return Effects(values, clean.score, corrupted.score, base.coverage)


def integrated(question: Question, sites: Sequence[PatchSite], steps: int, direction: str) -> Effects:
    """The same with the gradient averaged at a_base + k/N·(a_other − a_base), k = 0 … N − 1, place by place."""
    places = list(dict.fromkeys(site.place for site in sites))
    clean = plain_run(question, places, question.x, None)
    corrupted = plain_run(question, places, corrupted_of(question), None)
    base, other = (corrupted, clean) if direction == "denoising" else (clean, corrupted)
    x = corrupted_of(question) if direction == "denoising" else question.x
    coefficients = {}
    for done, place in enumerate(places):
        start, step = base.values[place], (other.values[place] - base.values[place]) / steps
        coefficients[place] = _mean_gradient(question, x, place, start, step, steps)
        question.on_progress((done + 1) / len(places))
    differences = {place: other.values[place] - base.values[place] for place in places}
    values = summed(sites, differences, coefficients, *question.x.shape[:2])
    return Effects(values, clean.score, corrupted.score)


def _mean_gradient(question: Question, x: Tensor, place: Place, start: Tensor, step: Tensor, steps: int) -> Tensor:
    """The mean of ∂M/∂a over the path, (batch, tokens, width); as many steps at once as fit into memory."""
    start, step = (tensor.reshape(len(x), -1, tensor.shape[-1]) for tensor in (start, step))  # some flatten the first
    total = torch.zeros_like(start)
    for which, rows in pairs(question, steps):
        variants = about(question, x[rows], rows)
        leaf = (start[rows] + per_row(which, start).to(start) * step[rows]).requires_grad_()
        with torch.enable_grad():
            if place.path == embedding_of(question):
                score = variants.scores(leaf.clone())
            else:
                with writing(question.twin, {place: lambda tensor, leaf=leaf: leaf.reshape(tensor.shape).clone()}):  # type: ignore[misc]
                    score = variants.scores(x[rows])
            (gradient,) = torch.autograd.grad(score.sum(), leaf)
        total.index_add_(0, rows, gradient)
    return total / steps
