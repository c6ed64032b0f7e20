"""Meta-saliency: the twin after one step of gradient descent on the explained class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attrib.errors import TargetError
from attrib.methods.base import Question
from attrib.outputs import logits_of


@contextmanager
def one_step(question: Question, rate: float) -> Iterator[None]:
    """Inside: θ′ = θ − rate · ∇_θ cross-entropy(f_θ(x), class), for one sample. Rebuffi et al. 2020, meta-saliency.

    The parameters of the twin are replaced, not written to: they share memory with the model's.
    """
    target = question.target
    if target.kind not in ("logit", "log_probability") or target.positive is None:
        raise TargetError(
            "meta-saliency trains on one class; explain an index, a label, Logit or LogProb, not a difference"
        )
    places = [(m, name, p) for m in question.twin.modules() for name, p in m._parameters.items() if p is not None]
    trained = {id(p): p.detach().requires_grad_(p.is_floating_point()) for _, _, p in places}
    try:
        _put(places, trained)
        with torch.enable_grad():
            logits = logits_of(question.twin(question.x.clone()))
            logits = logits if logits.dim() == 2 else logits.flatten(2).sum(2)
            loss = F.cross_entropy(logits, target.positive.to(logits.device))
            leaves = [p for p in trained.values() if p.requires_grad]
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        stepped = {id(p): p if g is None else p - rate * g for p, g in zip(leaves, gradients, strict=True)}
        _put(places, {key: stepped.get(id(p), p).detach() for key, p in trained.items()})
        yield
    finally:
        for module, name, parameter in places:
            module._parameters[name] = parameter


def _put(places: list[tuple[nn.Module, str, nn.Parameter]], new: dict[int, Tensor]) -> None:
    for module, name, parameter in places:
        module._parameters[name] = new[id(parameter)]  # type: ignore[assignment]
