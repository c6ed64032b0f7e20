"""One batch of inputs on trial: what a metric may ask of the model, and how maps are made anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attrib.binding import BoundTarget
from attrib.chunks import answered
from attrib.errors import InputError
from attrib.failures import is_out_of_memory, named_failures
from attrib.heatmaps import heatmaps
from attrib.memory import ChunkPlan, give_back
from attrib.methods.base import Finding, Method, Question
from attrib.methods.baselines import baseline_of, special_tokens
from attrib.methods.passes import laid_out
from attrib.models.encoded import Encoded
from attrib.models.text import TextModel
from attrib.models.vision import VisionModel
from attrib.rules.products import QuickProducts
from attrib.rules.shadow import shadow

Model = VisionModel | TextModel
Variant = Callable[[Tensor, Tensor], Tensor]
Key = tuple[int, str, bytes]  # which sample, what stands for what is missing, a digest of what is left
_MOST_ROWS = 64  # where they are small, or else so many as quick_rows says
_TEXT_BLANKS = ("unk", "mask", "pad", "zero")


@dataclass(frozen=True)
class Demand:
    """How much memory a row needs, as a multiple of a forward with its graph, as ChunkPlan asks."""

    memory_factor: float
    single_pass: bool = False
    attention_copies: float = 0.0


@dataclass
class Trial:
    """Inputs, the target that is explained, and the model, on a twin laid out for many forwards.

    allowed: (batch, *sites) bool: the pixels or tokens that count; special tokens and padding do not.
    masks: (batch, *sites) bool, where the truth is; None if nobody said.
    known: what the model said of what is left of an input, by `attrib.metrics.remains`: nothing is asked twice,
        whichever metric, method or random map comes upon it again.
    """

    model: Model
    encoded: Encoded
    target: BoundTarget
    question: Question
    allowed: Tensor
    masks: Tensor | None = None
    seed: int = 0
    max_memory: int | None = None
    on_progress: Callable[[float], None] = field(default=lambda fraction: None, repr=False)
    plan: ChunkPlan = field(default=ChunkPlan(1), repr=False)
    known: dict[Key, Tensor] = field(default_factory=dict, repr=False)
    _blanks: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(
        model: Model, encoded: Encoded, target: BoundTarget, passes: int, *, seed: int = 0,
        max_memory: int | None = None, masks: Tensor | None = None,
    ) -> Trial:  # fmt: skip
        """The target is settled first: the model's top class of the inputs as they are, whatever comes later."""
        plan = ChunkPlan.of(model, Demand(0.7), encoded, max_memory, _MOST_ROWS)
        ids = getattr(encoded, "token_ids", ()) or None
        question = Question(
            model, shadow(model.module), encoded.x, target, plan.rows, False, encoded.extra, encoded.words, ids
        )
        with named_failures(model.name, question.twin, question.x), QuickProducts():
            if target.kind == "predicted":
                question.settle()
            if passes:
                question = laid_out(question, passes, _MOST_ROWS)
        sites = encoded.x.shape[:2] if model.kind == "text" else encoded.x[:, 0].shape
        allowed = torch.ones(sites, dtype=torch.bool)
        if model.kind == "text":
            allowed = ~special_tokens(question).cpu()
        return Trial(model, encoded, question.target, question, allowed, masks, seed, max_memory, plan=plan)

    def __len__(self) -> int:
        return len(self.encoded.x)

    @property
    def is_text(self) -> bool:
        return self.model.kind == "text"

    @property
    def x(self) -> Tensor:
        return self.question.x

    def blank(self, name: str = "auto") -> Tensor:
        """What stands for 'nothing there', shaped like x. auto: zero; of texts the first token that the model has."""
        if name not in self._blanks:
            self._blanks[name] = self._made(name)
        return self._blanks[name]

    def _made(self, name: str) -> Tensor:
        if name != "auto":
            return baseline_of(name, self.question, self.seed)
        if not self.is_text:
            return baseline_of("zero", self.question)
        for known in _TEXT_BLANKS:
            try:
                return baseline_of(known, self.question)
            except InputError:  # the model has no such token
                continue
        raise InputError(f"{self.model.name} has nothing that stands for a missing token")

    def mixed(self, gone: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Rows that are `end` where gone (rows, *sites) is True, `start` elsewhere."""
        where = gone.to(start.device)
        return torch.where(where[:, :, None] if self.is_text else where[:, None], end, start)

    def asked(
        self, total: int, ask: Callable[[Tensor], Tensor], told: Callable[[float], None] = lambda part: None
    ) -> Tensor:
        """ask(rows) for all of `total` rows, (total, …): in pieces, without a graph, halved where memory runs out."""
        found: list[Tensor] = []
        done = 0
        while done < total:
            piece = torch.arange(done, min(total, done + self.question.max_rows), device=self.x.device)
            try:
                with named_failures(self.model.name, self.question.twin, self.x), torch.no_grad(), QuickProducts():
                    found.append(ask(piece))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self.plan = self.plan.halved(error, len(piece))
                self.question.max_rows = self.plan.rows
            else:
                done += len(piece)
                told(done / total)
                continue
            give_back(self.x.device)
        return torch.cat(found)

    def outputs(self, n: int, variant: Variant) -> Tensor:
        """(n, batch, classes): logits of n variants of every input; variant(step, sample) makes the rows."""
        return self._of_variants(n, variant, self.question.outputs)

    def outcomes(self, n: int, variant: Variant, read: str = "probability") -> Tensor:
        """(n, batch) float64 on the CPU: the explained class' probability, or "score": the explained number itself.

        Targets that are no class (a difference, a function) have no probability: there it is the score as well.
        """
        if not (read == "probability" and self.has_probability):
            return self._of_variants(n, variant, self.question.scores).cpu().double()
        probable = replace(self.question, target=BoundTarget("log_probability", self.target.positive))
        return self._of_variants(n, variant, probable.scores).cpu().double().exp()

    def _of_variants(self, n: int, variant: Variant, read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        batch = len(self)

        def ask(rows: Tensor) -> Tensor:
            return read(variant(rows // batch, rows % batch), rows % batch)

        found = self.asked(n * batch, ask, self.on_progress)
        return found.reshape(n, batch, *found.shape[1:])

    @property
    def has_probability(self) -> bool:
        return self.target.kind in ("logit", "log_probability")

    def maps(self, finding: Finding) -> Tensor:
        """A method's finding as one number a pixel or token, (batch, *sites) float64 on the CPU."""
        values = finding.values.detach().cpu().double()
        if self.is_text:
            return values
        return heatmaps(values, finding.reduction, (self.allowed.shape[1], self.allowed.shape[2]))

    def explained(self, method: Method, model: Model, x: Tensor, target: BoundTarget) -> Tensor:
        """The method's maps of x (shaped as the trial's) for `target` of `model`."""
        encoded = replace(self.encoded, x=x.contiguous())
        finding, _, _ = answered(model, method, encoded, target, False, self.max_memory)
        return self.maps(finding)

    def with_module(self, module: nn.Module) -> Model:
        """The same model around another module: randomised twins of its own, never the user's."""
        other: Any = replace(self.model, module=module)
        return other  # type: ignore[no-any-return]

    def random(self, *key: int) -> np.random.Generator:
        """Random numbers for this key: the same on every machine, in every batch."""
        return np.random.default_rng((self.seed, *key))

    def drawn(self, *key: int) -> Tensor:
        """One uniform number a site, the same for every input: a text's do not depend on padding."""
        shape = tuple(self.allowed.shape[1:])
        return torch.from_numpy(self.random(*key).random(shape))
