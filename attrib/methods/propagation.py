"""One backward pass of relevance under a rule table, and the ledger of where it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attrib.coverage import Coverage
from attrib.methods.base import Finding, Question, gradients
from attrib.methods.merging import merged
from attrib.methods.passes import about
from attrib.rules.engine import Engine
from attrib.rules.precision import wide
from attrib.rules.spelled import unite_activations
from attrib.rules.table import Rules


def propagate(question: Question, rules: Rules) -> Finding:
    """Relevance of the input under `rules`; with a ledger, where the rules account for all relevance."""
    if rules.conserving:
        unite_activations(question.twin)
    return merged([_found(flow, rules) for flow in Flow.each(question, rules, [])])


ALONE = "the model keeps its samples in another dimension than the first: each was given to it alone"
# of what the ledger books in all, what rounding may leave unaccounted; 1e-4 in float32
_ROUNDING = {torch.float64: 1e-8, torch.float16: 0.02, torch.bfloat16: 0.05}


def of_each_sample(question: Question, explained: Callable[[Question], Finding], rules: str | Rules) -> Finding:
    """`explained(question)`, of each sample alone where the ledger would mix them.

    Amounts are booked by the first dimension. Where samples lie in another (attention with tokens first), those of a
    batch do not add up to the scores, one by one; then the samples are explained alone, and it is remembered on behalf
    of these `rules` and this shape whether that made a difference.
    """
    known, key = question.model.weight_cache.mixed, (rules, tuple(question.x.shape), question.x.dtype)
    if len(question.x) == 1 or known.get(key) is False:
        return explained(question)
    together = None if known.get(key) else explained(question)
    if together is not None and _unaccounted(together) <= 1:
        return together
    rows = torch.arange(len(question.x), device=question.x.device).split(1)
    alone = merged([explained(about(question, question.x[row], row)) for row in rows])
    known[key] = together is None or _unaccounted(alone) < _unaccounted(together) / 2
    return replace(alone, notes=(*alone.notes, ALONE)) if together is None or known[key] else together


def _unaccounted(found: Finding) -> float:
    """The largest amount that one sample's ledger cannot account for, as a multiple of what rounding may leave."""
    if found.ledger is None:
        return 0.0
    booked = torch.stack([amount.abs() for amount in found.ledger.values()]).sum(0)
    shares = found.ledger["unaccounted"].abs() / booked
    return float(shares.nan_to_num(0.0).amax()) / _ROUNDING.get(found.score.dtype, 1e-4)


def _found(flow: Flow, rules: Rules) -> Finding:
    found = Finding(flow.input_relevance(), flow.score, coverage=flow.coverage)
    if not rules.conserving:
        return found
    ledger, delta = settled_ledger({"input": found.values}, flow)
    return replace(found, delta=delta, ledger=ledger)


@dataclass(frozen=True)
class Flow:
    """One backward pass under rules: gradients of the input, of the deposits, and of further sources.

    absorbed: what did not reach them, by name. coverage: of the forward; empty but in the first of several flows.
    """

    score: Tensor
    leaf: Tensor
    gradient: Tensor | None
    deposits: Sequence[Tensor | None]
    sources: Sequence[Tensor | None]
    absorbed: dict[str, Tensor]
    coverage: Coverage

    @staticmethod
    def each(question: Question, rules: Rules, sources: list[tuple[str, Tensor]]) -> list[Flow]:
        """One flow for all rows; where one row has several targets, one for each, after one forward.

        `sources` is filled while the forward runs (positions), and read after it.
        """
        engine = Engine(rules, question.twin, question.x.shape, question.model.weight_cache, question.strict)
        leaf = question.packed(question.x).requires_grad_()
        with torch.enable_grad():
            with engine:
                score = question.scores(leaf.clone())
            further = [tensor for _, tensor in sources]
            flows: list[Flow] = []
            n = len(engine.deposits)
            for gradient, *rest in gradients(score, [leaf, *engine.deposits, *further], unused=True):
                own = score.detach() if len(score) == len(leaf) else score.detach()[len(flows), None]
                absorbed, engine.ledger.amounts = engine.ledger.amounts, {}
                coverage = Coverage({}, {}, {}) if flows else Coverage(**engine.record.counts)
                flows.append(Flow(own, leaf.detach(), gradient, rest[:n], rest[n:], absorbed, coverage))
        return flows

    def input_relevance(self) -> Tensor:
        """x ⊙ c and what first-layer rules put on the input, in the input's shape."""
        values = torch.zeros_like(self.leaf) if self.gradient is None else self.leaf * self.gradient
        for deposit in self.deposits:
            if deposit is not None:
                values = values + deposit
        return values.detach()


def settled_ledger(reached: dict[str, Tensor], flow: Flow) -> tuple[dict[str, Tensor], Tensor]:
    """(name → (batch,) amounts that add up to the score, what could not be accounted for)."""
    amounts = {name: wide(values).flatten(1).sum(1) for name, values in reached.items()}
    amounts |= flow.absorbed
    missing = wide(flow.score) - torch.stack(list(amounts.values())).sum(0)
    amounts["unaccounted"] = missing
    return {name: amount.to(flow.score.dtype) for name, amount in amounts.items()}, (-missing).to(flow.score.dtype)
