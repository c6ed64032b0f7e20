"""DeepLIFT with the rescale rule: two forwards and one backward, complete by construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from attrib.attribution import Coverage
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.baselines import BASELINE_HELP, BASELINES, Baseline, baseline_of, equal_notes
from attrib.rules.affine import packed
from attrib.rules.rescale import RESCALE, BaselineRecorder, RescaleEngine
from attrib.targets import logits_of


@dataclass(frozen=True)
class DeepLift(Method):
    """(x − x₀) ⊙ m, with m the multipliers Δy/Δx chained back to the input. Shrikumar et al. 2017."""

    name: ClassVar[str] = "deeplift"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    memory_factor: ClassVar[float] = 2.5
    card: ClassVar[Card] = Card(
        title="DeepLIFT",
        idea="Which pixels explain the difference between this score and the baseline's?",
        formula="(x − x₀) ⊙ m; at each nonlinearity m = Δy/Δz between input and baseline (rescale rule)",
        reference="Shrikumar, Greenside, Kundaje 2017, arXiv:1704.02685",
        assumptions="The baseline means 'nothing there'. Linear layers, activations and max-pools are covered; "
        "products of two activations are not, and are reported.",
        misleads="Like every method with a baseline it is blind to what looks like the baseline; where products "
        "are not covered the completeness error shows how much is missing.",
        cost="2 F + 1 B",
    )

    baseline: Baseline = setting("zero", BASELINE_HELP, choices=BASELINES)

    def explain(self, question: Question) -> Finding:
        x = packed(question.x)
        baseline = packed(baseline_of(self.baseline, question))
        alike = question.target.function is None and not question.is_text
        one_for_all = alike and bool((baseline == baseline[:1]).all())
        shared = baseline[:1] if one_for_all else baseline
        if question.target.kind == "predicted":
            question.settle()
        with torch.no_grad():
            with BaselineRecorder(question.model.weight_cache) as recorder:
                outputs = question.outputs(shared)
            at_baseline = question.target.scores(_spread(outputs, len(x)) if one_for_all else outputs)
        engine = RescaleEngine(
            recorder.inputs, RESCALE, question.twin, x.shape, question.model.weight_cache, question.strict
        )
        with engine:
            score, multipliers = question.gradient(x)
        values = (x - baseline) * multipliers
        delta = values.flatten(1).sum(1) - (score - at_baseline)
        notes = equal_notes(question.x, baseline)
        return Finding(values, score, delta=delta, coverage=Coverage(**engine.counts), notes=notes)


def _spread(outputs: Any, batch: int) -> Tensor:
    """The logits, one row per sample also where one baseline serves all."""
    logits = logits_of(outputs)
    return logits.expand(batch, *logits.shape[1:]) if len(logits) == 1 else logits
