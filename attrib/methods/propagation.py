"""One backward pass of relevance under a rule table, and the ledger of where it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attrib.attribution import Coverage
from attrib.methods.base import Finding, Question
from attrib.rules.affine import packed
from attrib.rules.engine import Engine, Rules
from attrib.rules.spelled import unite_activations


def propagate(question: Question, rules: Rules) -> Finding:
    """Relevance of the input under `rules`, with the ledger."""
    if rules.conserving:
        unite_activations(question.twin)
    flow = Flow.through(question, rules, [])
    values = flow.input_relevance()
    ledger, delta = settled_ledger({"input": values}, flow)
    return Finding(values, flow.score, delta=delta, ledger=ledger, coverage=Coverage(**flow.engine.counts))


@dataclass(frozen=True)
class Flow:
    """One backward pass under rules: gradients of the input, of the deposits, and of further sources."""

    engine: Engine
    score: Tensor
    leaf: Tensor
    gradient: Tensor | None
    deposits: Sequence[Tensor | None]
    sources: Sequence[Tensor | None]

    @staticmethod
    def through(question: Question, rules: Rules, sources: list[tuple[str, Tensor]]) -> Flow:
        """`sources` is filled while the forward runs (positions), and read after it."""
        engine = Engine(rules, question.twin, question.x.shape, question.model.weight_cache, question.strict)
        leaf = packed(question.x).requires_grad_()
        with torch.enable_grad():
            with engine:
                score = question.scores(leaf.clone())
            further = [tensor for _, tensor in sources]
            wanted = [leaf, *engine.deposits, *further]
            gradient, *rest = torch.autograd.grad(score.sum(), wanted, allow_unused=True)
        n = len(engine.deposits)
        return Flow(engine, score.detach(), leaf.detach(), gradient, rest[:n], rest[n:])

    def input_relevance(self) -> Tensor:
        """x ⊙ c and what first-layer rules put on the input, in the input's shape."""
        values = torch.zeros_like(self.leaf) if self.gradient is None else self.leaf * self.gradient
        for deposit in self.deposits:
            if deposit is not None:
                values = values + deposit
        return values.detach()


def settled_ledger(reached: dict[str, Tensor], flow: Flow) -> tuple[dict[str, Tensor], Tensor]:
    """(name → (batch,) amounts that add up to the score, what could not be accounted for)."""
    amounts = {name: values.double().flatten(1).sum(1) for name, values in reached.items()}
    amounts |= flow.engine.ledger.amounts
    missing = flow.score.double() - torch.stack(list(amounts.values())).sum(0)
    amounts["unaccounted"] = missing
    return {name: amount.to(flow.score.dtype) for name, amount in amounts.items()}, (-missing).to(flow.score.dtype)
