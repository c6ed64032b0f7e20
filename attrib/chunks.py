"""One question about many inputs, answered in chunks that fit into memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attrib.binding import BoundTarget
from attrib.failures import is_out_of_memory, named_failures
from attrib.findings import joined, per_token
from attrib.memory import ChunkPlan, give_back
from attrib.methods.base import Finding, Method, Question
from attrib.methods.merging import merged
from attrib.models.encoded import Encoded
from attrib.models.text import READ_AT
from attrib.patching.pair import EncodedPair
from attrib.rules.products import QuickProducts
from attrib.rules.shadow import shadow

if TYPE_CHECKING:
    from attrib.models.text import TextModel
    from attrib.models.vision import VisionModel

Progress = Callable[[float, str], None]


def answered(
    model: VisionModel | TextModel,
    method: Method,
    encoded: Encoded,
    target: BoundTarget,
    strict: bool = False,
    max_memory: int | None = None,
    on_progress: Progress | None = None,
    alike: int = 1,
) -> tuple[Finding, BoundTarget, tuple[str, ...]]:
    """What `method` finds for inputs that are encoded already, the target with its indices, and notes of the plan.

    strict, max_memory, on_progress: as of `attrib.explain`. alike: how many rows in a row hold the same input, with
    targets of their own.
    """
    shared = alike if method.shares_forward else 1
    first = encoded if shared == 1 else dataclasses.replace(encoded, x=encoded.x[:1])
    plan = ChunkPlan.of(model, method, first, max_memory)
    chunks = _Chunks(model, method, encoded, target, strict, on_progress, shared)
    findings, settled, plan = chunks.answered(plan)
    finding = merged(findings)
    return (per_token(finding) if model.kind == "text" else finding), joined(settled), plan.notes


@dataclass(frozen=True)
class _Chunks:
    """Rows of inputs with their targets. shared: how many rows are one input, which one forward answers together."""

    model: VisionModel | TextModel
    method: Method
    encoded: Encoded
    target: BoundTarget
    strict: bool
    on_progress: Progress | None
    shared: int

    def answered(self, plan: ChunkPlan) -> tuple[list[Finding], list[BoundTarget], ChunkPlan]:
        """Findings and settled targets, one a chunk, and the plan by which it went in the end."""
        x, start = self.encoded.x, 0
        findings: list[Finding] = []
        settled: list[BoundTarget] = []
        while start < len(x):
            stop = min(len(x), start + (plan.rows if self.shared == 1 else self.shared))
            question = self._question(start, stop, plan.rows)
            try:
                findings.append(_answer(self.method, question))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                plan = plan.halved(error, stop - start if self.method.single_pass else plan.rows)
            else:
                settled.append(question.target)
                start = stop
                continue
            give_back(x.device)  # behind the handler: the error held on to what the run had made
        if self.on_progress is not None:
            self.on_progress(1.0, self.method.name)
        return findings, settled, plan

    def _question(self, start: int, stop: int, max_rows: int) -> Question:
        """The chunk of targets start to stop, and of the inputs that they are asked about."""
        encoded, rows = self.encoded, slice(start, stop if self.shared == 1 else start + 1)
        extra = {name: value[start:stop] if name == READ_AT else value[rows] for name, value in encoded.extra.items()}
        words = None if encoded.words is None else encoded.words[rows]
        ids = getattr(encoded, "token_ids", ())[rows] or None
        twin, part = shadow(self.model.module), self.target.part(start, stop)
        question = Question(self.model, twin, encoded.x[rows], part, max_rows, self.strict, extra, words, ids)
        if isinstance(encoded, EncodedPair) and encoded.corrupted is not None:
            question.corrupted = encoded.corrupted[rows]
        if self.on_progress is not None:
            question.on_progress = self._within(start / len(encoded.x), stop / len(encoded.x), self.on_progress)
        question.on_progress(0.0)
        return question

    def _within(self, low: float, high: float, tell: Progress) -> Callable[[float], None]:
        return lambda fraction: tell(low + fraction * (high - low), self.method.name)


def _answer(method: Method, question: Question) -> Finding:
    with named_failures(question.model.name, question.twin, question.x), QuickProducts():
        if not method.single_pass and question.target.kind == "predicted":
            question.settle()
        return method.explain(question)
