"""A zennit composite of the user's own, run on a private copy of the model."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.methods.base import Finding, Question
from attrib.outputs import logits_of


def explain_with_composite(composite: Any, question: Question) -> Finding:
    """Relevance under `composite`. Its hooks and canonizers change what they run on, so they get a deep copy."""
    from zennit.attribution import Gradient
    from zennit.core import Composite

    if not isinstance(composite, Composite):
        raise InputError(f"composite must be a zennit Composite, got {type(composite).__name__}")
    score = question.settle()
    module = copy.deepcopy(question.model.module).eval().requires_grad_(False)

    def seed(outputs: Any) -> Tensor:
        """Each logit's share of the explained number: logit · ∂score/∂logit."""
        logits = logits_of(outputs).detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(question.target.scores(logits).sum(), logits)
        return (logits * slope).detach()

    with Gradient(model=module, composite=composite) as attributor:
        _, relevance = attributor(question.x.detach().clone(), seed)
    values = relevance.detach()
    name = type(composite).__name__
    return Finding(
        values,
        score,
        delta=values.flatten(1).sum(1) - score,
        notes=(f"zennit's {name} ran on a copy of the model; it keeps no ledger, so what it lost is the error",),
    )
