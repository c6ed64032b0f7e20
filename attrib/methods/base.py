"""What every method is: a frozen dataclass of settings, a card, and `explain(question) -> Finding`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from attrib.binding import BoundTarget
from attrib.coverage import Coverage
from attrib.errors import TargetError, UnsupportedModel
from attrib.models.layout import takes_channels_last
from attrib.rules.affine import packed
from attrib.rules.engine import Engine, engine_in_force
from attrib.rules.remembered import as_it_stands
from attrib.rules.shadow import shadow
from attrib.rules.table import Rules

if TYPE_CHECKING:
    from attrib.models.text import TextModel
    from attrib.models.vision import VisionModel

Kind = Literal["input", "layer", "tokens", "sites", "edges"]
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
    sites: tuple[str, ...] | None = None
    receivers: tuple[str, ...] | None = None


@dataclass
class Question:
    """One chunk of inputs and what is asked about it.

    twin: the model's shadow; hooks and changed parameters on it are nobody else's business.
    x: (batch, channel, height, width), preprocessed, or embeddings (batch, tokens, width); without gradients.
    target: one per row of x; several for a single row where the method shares its forward among them.
    extra: what else the model is given, a row per sample: attention masks.
    words, token_ids: of texts, per sample and of its own tokens: the word of each (None: of none), and its id.
    max_rows: how many rows one forward (with its backward) may hold under the memory limit.
    corrupted: of pairs: embeddings of the corrupted prompts, shaped like x, which are those of the clean ones.
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
    corrupted: Tensor | None = None
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

    def packed(self, x: Tensor) -> Tensor:
        """x in channels_last, in which rules run faster, unless the model needs memory in its usual order."""
        if x.dim() != 4:
            return x.detach()
        return packed(x) if self.takes_channels_last else x.detach().contiguous()

    @property
    def takes_channels_last(self) -> bool:
        """Whether the model computes the same from pictures in that layout."""
        first = {name: value[:1] for name, value in self.extra.items()}
        # a twin of its own, on which no method has put anything
        return takes_channels_last(
            self.model.module, lambda x: self.model.forward(shadow(self.model.module), x, first), self.x
        )

    def scores(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """The explained number of every row of x, (rows,), with its graph when x requires gradients.

        rows[i] is the sample that row i is a variant of (None: row i is sample i).
        The first call settles a "predicted" target and so must be on the inputs themselves.
        """
        outputs = self.outputs(x, rows)
        if self.target.kind == "predicted":
            self.target = self.target.settled(outputs)
        scores = self.target.scores(outputs, rows)
        if len(scores) != len(x) and self.target.function is not None:
            raise TargetError(f"a callable target must return a number for each row: {len(scores)} for {len(x)} rows")
        engine = engine_in_force()
        if x.requires_grad and torch.is_grad_enabled() and not scores.requires_grad:
            ruled = engine is not None and engine.rules.conserving
            constant = (
                ", or does nothing with it but what these rules take as constant, as reciprocals" if ruled else ""
            )
            raise UnsupportedModel(
                f"the score of {self.model.name} has no gradient at the input: somewhere the model detaches, rounds or "
                f"runs under no_grad{constant}; occlusion and kernel_shap need no gradient"
            )
        if engine is not None and scores.requires_grad:
            engine.watch_hidden(scores)
        return scores

    def outputs(self, x: Tensor, rows: Tensor | None = None) -> Any:
        """What the twin returns for rows of x; for text, logits at the position that is explained."""
        extra = self.extra if rows is None else {name: value[rows] for name, value in self.extra.items()}
        with as_it_stands(self.model.module, self.twin):
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
            gradient = torch.cat([gradient for (gradient,) in gradients(scores, [leaf])])
        real = self.real
        if real is not None:
            gradient = gradient.masked_fill(~(real if rows is None else real[rows]), 0.0)
        return scores.detach(), gradient

    def gradient_under(self, rules: Rules) -> tuple[Tensor, Tensor, Coverage]:
        """(scores, modified gradient at x, coverage) with `rules` in force."""
        engine = Engine(rules, self.twin, self.x.shape, self.model.weight_cache, self.strict)
        x = self.packed(self.x)
        with engine:
            score, gradient = self.gradient(x)
        return score, gradient, Coverage(**engine.record.counts)


class Method:
    """Base of all methods. Subclasses are frozen dataclasses whose fields have defaults.

    Each field carries metadata for its control and its documentation: see `setting`. Methods are equal when their
    settings are; those that take tensors say `eq=False`, so that tensors are compared by their values.
    """

    card: ClassVar[Card]
    name: ClassVar[str]  # the key in METHODS
    applies_to: ClassVar[frozenset[str]] = frozenset({"image"})
    needs_attention: ClassVar[bool] = False  # True: applies to transformers only
    single_pass: ClassVar[bool] = True  # False: needs more rows than it has inputs
    memory_factor: ClassVar[float] = 1.0  # memory of a row as a multiple of a plain forward and backward
    attention_copies: ClassVar[float] = 0.0  # of all attention matrices of a row at once, where it opens them

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    def __hash__(self) -> int:
        settings = (getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]
        return hash((type(self), *(v.shape if isinstance(v, Tensor) else v for v in settings)))

    def explain(self, question: Question) -> Finding:
        raise NotImplementedError

    def settled(self, kind: str) -> Method:
        """The same method with every setting as it is taken on models of this kind."""
        return self

    @property
    def shares_forward(self) -> bool:
        """Whether `explain` can answer several targets of one input from one forward, with a backward each.

        It is then asked with x of one row and a target of several, and finds a row for each of them.
        """
        return False


def gradients(scores: Tensor, wanted: Sequence[Tensor], unused: bool = False) -> Iterator[tuple[Any, ...]]:
    """∂ Σ scores/∂wanted; where one input has several scores, of each score alone, one after the other.

    unused: None for tensors that a score does not depend on, instead of an error.
    """
    several = len(scores) > len(wanted[0]) == 1
    for i, score in enumerate(scores if several else (scores.sum(),)):
        kept = several and i + 1 < len(scores)
        yield torch.autograd.grad(score, wanted, retain_graph=kept, allow_unused=unused)


def setting(
    default: Any,
    help: str | Mapping[str, str],
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None,
    advanced: bool = False,
    for_kinds: tuple[str, ...] = ("image", "text"),
) -> Any:
    """A dataclass field with what its control needs: one line of help, bounds or choices.

    for_kinds: the kinds of input that it means something for. help, choices: a mapping from these kinds, where they
    differ. The metadata's "of_kind" holds those of each kind, its "help" and "choices" all of them.
    """
    of_kind = {kind: {"help": _of(help, kind), "choices": _of(choices, kind)} for kind in for_kinds}
    every = {choice: None for own in of_kind.values() for choice in own["choices"] or ()}
    metadata = {
        "help": " ".join(dict.fromkeys(own["help"] for own in of_kind.values())),
        "choices": tuple(every) or None,
        "low": low, "high": high, "advanced": advanced, "of_kind": of_kind,
    }  # fmt: skip
    return field(default=default, metadata=metadata)


def _same(first: Any, second: Any) -> bool:
    tensors = isinstance(first, Tensor) and isinstance(second, Tensor)
    if not tensors:
        return bool(type(first) is type(second) and first == second)
    return first.dtype == second.dtype and torch.equal(first.cpu(), second.cpu())


def _of(given: Any, kind: str) -> Any:
    return given[kind] if isinstance(given, Mapping) else given
