"""DeepLIFT with the rescale rule: two forwards and one backward, complete by construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from attrib.coverage import Coverage
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.baselines import BASELINE_HELP, BASELINES, Baseline, baseline_of, equal_notes
from attrib.outputs import logits_of
from attrib.rules.lifting import OPENING, RESCALE, TRACED
from attrib.rules.spelled import unite_activations
from attrib.rules.trace import BaselineRecorder, OtherPath, RescaleEngine, departures


@dataclass(frozen=True, eq=False)
class DeepLift(Method):
    """(x − x₀) ⊙ m, with m the multipliers Δy/Δx chained back to the input. Shrikumar et al. 2017."""

    name: ClassVar[str] = "deeplift"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    memory_factor: ClassVar[float] = 2.5
    attention_copies: ClassVar[float] = 9.3  # measured, SmolLM2 at 256 to 768 tokens
    card: ClassVar[Card] = Card(
        title="DeepLIFT",
        idea="Which parts of the input explain the difference between this score and the baseline's?",
        formula="(x − x₀) ⊙ m; at each nonlinearity m = Δy/Δz between input and baseline (rescale rule); "
        "Δ(ab) = Δa (b + b₀)/2 + Δb (a + a₀)/2",
        reference="Shrikumar, Greenside, Kundaje 2017, arXiv:1704.02685",
        assumptions="The baseline means 'nothing there'. Two factors share the change of their product equally "
        "(beyond the paper: attention, gates and norms are covered so); what is not covered is reported.",
        misleads="Like every method with a baseline it is blind to what looks like the baseline, and a multiplier "
        "Δy/Δx says nothing of the path between the two.",
        cost="2 F + 1 B",
    )

    baseline: Baseline = setting("zero", BASELINE_HELP, choices=BASELINES)

    def explain(self, question: Question) -> Finding:
        unite_activations(question.twin)
        x = question.packed(question.x)
        baseline = question.packed(baseline_of(self.baseline, question))
        if question.target.kind == "predicted":
            question.settle()
        alike = question.target.function is None and not question.is_text and bool((baseline == baseline[:1]).all())
        # one baseline serves all, unless the model mixes the batch into other axes
        ways = [(baseline[:1], False)] * (alike and len(x) > 1) + [(baseline, False), (baseline, True)]
        for start, with_graph in ways[:-1]:
            try:
                return _lifted(question, x, start, with_graph)
            except OtherPath:
                pass
        return _lifted(question, x, *ways[-1])


def _lifted(question: Question, x: Tensor, baseline: Tensor, with_graph: bool) -> Finding:
    cache = question.model.weight_cache
    recorder = BaselineRecorder(cache, TRACED, OPENING, with_graph)
    with torch.no_grad():
        at_baseline = question.target.scores(_spread(recorder.run(question.outputs, baseline), len(x)))
    engine = RescaleEngine(recorder, TRACED, RESCALE, question.twin, x.shape, cache, question.strict)
    with departures(), engine:
        score, multipliers = question.gradient(x)
    values = (x - baseline) * multipliers
    delta = values.flatten(1).sum(1) - (score - at_baseline)
    notes = equal_notes(question.x, baseline.expand_as(x))
    if "scaled_dot_product_attention" in engine.record.counts["ruled"]:
        notes = (*notes, "fused attention was opened: its softmax and its products have rules of their own")
    return Finding(values, score, delta=delta, coverage=Coverage(**engine.record.counts), notes=notes)


def _spread(outputs: Any, batch: int) -> Any:
    """The logits, one row per sample also where one baseline serves all."""
    logits = logits_of(outputs)
    return logits.expand(batch, *logits.shape[1:]) if len(logits) == 1 != batch else outputs
