"""What every method is: a frozen dataclass of settings, a card, and `explain(question) -> Finding`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from attrib.attribution import Coverage
from attrib.errors import UnsupportedModel
from attrib.rules.affine import packed
from attrib.rules.engine import Engine, Rules
from attrib.targets import BoundTarget

if TYPE_CHECKING:
    from attrib.models.text import TextModel
    from attrib.models.vision import VisionModel

Kind = Literal["input", "layer", "tokens", "sites"]
Reduction = Literal["sum", "mean", "max_abs", "norm"]


@dataclass(frozen=True)
class Card:
    """What a reader should know about a method; the app, the README and `attrib methods` show the same."""

    title: str
    idea: str
    formula: str
    reference: str
    assumptions: str
    misleads: str
    cost: str  # in forwards (F) and backwards (B)


@dataclass(frozen=True)
class Finding:
    """What a method found for one chunk; the fields are those of `Attribution`."""

    values: Tensor
    score: Tensor
    kind: Kind = "input"
    reduction: Reduction = "sum"
    signed: bool = True
    delta: Tensor | None = None
    ledger: dict[str, Tensor] | None = None
    coverage: Coverage | None = None
    parts: dict[str, Tensor] | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Question:
    """One chunk of inputs and what is asked about it.

    twin: the model's shadow; hooks and changed parameters on it are nobody else's business.
    x: (batch, channel, height, width), preprocessed, or embeddings (batch, tokens, width); without gradients.
    extra: what else the model is given, a row per sample: attention masks.
    words, token_ids: of texts, per sample and of its own tokens: the word of each (None: of none), and its id.
    max_rows: how many rows one forward (with its backward) may hold under the memory limit.
    on_progress: told the finished fraction of this chunk; raises Cancelled to stop.
    """

    model: VisionModel | TextModel
    twin: nn.Module
    x: Tensor
    target: BoundTarget
    max_rows: int = 8
    strict: bool = False
    extra: dict[str, Tensor] = field(default_factory=dict)
    words: tuple[tuple[int | None, ...], ...] | None = None
    token_ids: tuple[tuple[int, ...], ...] | None = None
    on_progress: Callable[[float], None] = field(default=lambda fraction: None, repr=False)

    @property
    def is_text(self) -> bool:
        """Whether x are embeddings (batch, tokens, width)."""
        return self.model.kind == "text"

    @property
    def real(self) -> Tensor | None:
        """(batch, tokens, 1): True where a token is, False where padding is; None where nothing is padded."""
        mask = self.extra.get("attention_mask") if self.is_text else None
        return None if mask is None else mask.bool()[:, :, None]

    def scores(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """The explained number of every row of x, (rows,), with its graph when x requires gradients.

        rows[i] is the sample that row i is a variant of (None: row i is sample i).
        The first call settles a "predicted" target and so must be on the inputs themselves.
        """
        outputs = self.outputs(x, rows)
        if self.target.kind == "predicted":
            self.target = self.target.settled(outputs)
        scores = self.target.scores(outputs, rows)
        if x.requires_grad and torch.is_grad_enabled() and not scores.requires_grad:
            raise UnsupportedModel(
                f"the score of {self.model.name} has no gradient at the input: somewhere the model detaches, rounds or "
                "runs under no_grad; occlusion and kernel_shap need no gradient"
            )
        return scores

    def outputs(self, x: Tensor, rows: Tensor | None = None) -> Any:
        """What the twin returns for rows of x; for text, logits at the position that is explained."""
        extra = self.extra if rows is None else {name: value[rows] for name, value in self.extra.items()}
        return self.model.forward(self.twin, x, extra)

    def settle(self) -> Tensor:
        """f(x), (batch,), without a graph, in pieces of max_rows; afterwards the target is settled."""
        if self.target.kind == "predicted":
            with torch.no_grad():
                pieces = torch.arange(len(self.x), device=self.x.device).split(self.max_rows)
                tops = [self.outputs(self.x[rows], rows) for rows in pieces]
            settled = [self.target.settled(top) for top in tops]
            indices = [s.positive for s in settled if s.positive is not None]
            self.target = BoundTarget("logit", positive=torch.cat(indices))
            scores = [s.scores(top) for s, top in zip(settled, tops, strict=True)]
            return torch.cat(scores).detach()
        with torch.no_grad():
            pieces = torch.arange(len(self.x), device=self.x.device).split(self.max_rows)
            return torch.cat([self.scores(self.x[rows], rows) for rows in pieces])

    def gradient(self, x: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(scores, ∂ Σ scores/∂x), both detached, padding's set to 0. Parameter gradients are never computed."""
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            # a model may change its input in place, which a leaf forbids
            scores = self.scores(leaf.clone(), rows)
            (gradient,) = torch.autograd.grad(scores.sum(), leaf)
        real = self.real
        if real is not None:
            gradient = gradient.masked_fill(~(real if rows is None else real[rows]), 0.0)
        return scores.detach(), gradient

    def gradient_under(self, rules: Rules) -> tuple[Tensor, Tensor, Coverage]:
        """(scores, modified gradient at x, coverage) with `rules` in force."""
        engine = Engine(rules, self.twin, self.x.shape, self.model.weight_cache, self.strict)
        with engine:
            score, gradient = self.gradient(packed(self.x))
        return score, gradient, Coverage(**engine.counts)


class Method:
    """Base of all methods. Subclasses are frozen dataclasses whose fields have defaults.

    Each field carries metadata for its control and its documentation: see `setting`.
    """

    card: ClassVar[Card]
    name: ClassVar[str]  # the key in METHODS
    applies_to: ClassVar[frozenset[str]] = frozenset({"image"})
    needs_attention: ClassVar[bool] = False  # True: applies to transformers only
    single_pass: ClassVar[bool] = True  # False: needs more rows than it has inputs
    memory_factor: ClassVar[float] = 1.0  # memory of a row as a multiple of a plain forward and backward

    def explain(self, question: Question) -> Finding:
        raise NotImplementedError


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    advanced: bool = False,
) -> Any:
    """A dataclass field with what its control needs: one line of help, bounds or choices."""
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "advanced": advanced}
    return field(default=default, metadata=metadata)
