"""What is explained: one number per sample, read from the model's output.

`bind` turns what a caller may write (nothing, an int, a label, one per input, an object, a callable)
into a `BoundTarget` whose indices are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from attrib.errors import TargetError, UnsupportedModel

Name = int | str


@dataclass(frozen=True)
class Logit:
    """The logit of one class (index or label)."""

    index: Name


@dataclass(frozen=True)
class LogitDiff:
    """logit(positive) − logit(negative): why this rather than that."""

    positive: Name
    negative: Name


@dataclass(frozen=True)
class LogProb:
    """log softmax of one class."""

    index: Name


@dataclass(frozen=True)
class TokenLogit:
    """The logit of a token at a position of a language model's output (−1: the last)."""

    token: Name
    position: int = -1


Target = None | int | str | Logit | LogitDiff | LogProb | TokenLogit | Callable[[Any], Tensor]
Targets = Target | Sequence[Target] | Tensor


def logits_of(outputs: Any) -> Tensor:
    """The logits in whatever a model returned: a tensor, a ModelOutput, a dict or a tuple."""
    if isinstance(outputs, Tensor):
        return outputs
    for key in ("logits", "out", "output", "prediction"):
        value = outputs.get(key) if isinstance(outputs, dict) else getattr(outputs, key, None)
        if isinstance(value, Tensor):
            return value
    values = outputs.values() if isinstance(outputs, dict) else outputs
    if isinstance(values, (tuple, list)) or isinstance(outputs, dict):
        for value in values:
            if isinstance(value, Tensor) and value.is_floating_point():
                return value
    raise UnsupportedModel(
        f"the model returned {type(outputs).__name__} without a tensor of logits; "
        "return a (batch, classes) tensor, or a dict or object with 'logits'"
    )


@dataclass(frozen=True)
class BoundTarget:
    """A target whose indices are known, or will be the top class of the first output it reads."""

    kind: str  # "logit", "difference", "log_probability", "predicted", "function"
    positive: Tensor | None = None  # (batch,) long
    negative: Tensor | None = None  # (batch,) long
    function: Callable[[Any], Tensor] | None = field(default=None, compare=False)

    def settled(self, outputs: Any) -> BoundTarget:
        """The same target with "predicted" replaced by the top class of `outputs`."""
        if self.kind != "predicted":
            return self
        return replace(self, kind="logit", positive=_class_scores(outputs).argmax(1))

    def scores(self, outputs: Any, rows: Tensor | None = None) -> Tensor:
        """The explained number of each row; `rows[i]` is the sample that row i is a copy of."""
        if self.function is not None:
            return _checked_scores(self.function(outputs))
        logits = _class_scores(outputs)
        first = self._pick(logits, self.positive, rows)
        if self.kind == "difference":
            return first - self._pick(logits, self.negative, rows)
        if self.kind == "log_probability":
            return first - logits.logsumexp(1)
        return first

    def _pick(self, logits: Tensor, index: Tensor | None, rows: Tensor | None) -> Tensor:
        if index is None:
            raise TargetError("the target was read before it was settled")
        index = index.to(logits.device)
        index = index if rows is None else index[rows.to(logits.device)]
        highest = int(index.max())
        if highest >= logits.shape[1]:
            raise TargetError(
                f"target {highest} is out of range: the model has {logits.shape[1]} classes, 0 to {logits.shape[1] - 1}"
            )
        return logits.gather(1, index[:, None])[:, 0]

    def part(self, start: int, stop: int) -> BoundTarget:
        """The target of samples start to stop of the batch."""
        first, second = (None if i is None else i[start:stop] for i in (self.positive, self.negative))
        return replace(self, positive=first, negative=second)

    def describe(self, label_of: Callable[[int], str], batch: int) -> list[dict[str, Any]]:
        """One plain dict per sample, fit for JSON: kind, index, label."""
        rows: list[dict[str, Any]] = []
        for i in range(batch):
            row: dict[str, Any] = {"kind": self.kind}
            for name, index in (("index", self.positive), ("versus", self.negative)):
                if index is not None:
                    row[name] = int(index[i])
                    label = label_of(int(index[i]))
                    if label != str(int(index[i])):  # a class without a name is called by its index
                        row["label" if name == "index" else "versus_label"] = label
            if self.function is not None:
                row["function"] = getattr(self.function, "__name__", type(self.function).__name__)
            rows.append(row)
        return rows


def bind(target: Targets, batch: int, index_of: Callable[[Name], int]) -> BoundTarget:
    """Resolve `target` for a batch; `index_of` turns a label into an index or raises TargetError."""
    if target is None:
        return BoundTarget("predicted")
    if isinstance(target, Tensor):
        target = [int(t) for t in target.reshape(-1)]
    if isinstance(target, (list, tuple)):
        return _bind_each(list(target), batch, index_of)
    if callable(target) and not isinstance(target, (Logit, LogitDiff, LogProb, TokenLogit)):
        return BoundTarget("function", function=target)
    return _bind_each([target] * batch, batch, index_of)


_KINDS: dict[type, tuple[str, tuple[str, ...]]] = {
    Logit: ("logit", ("index",)),
    TokenLogit: ("logit", ("token",)),
    LogitDiff: ("difference", ("positive", "negative")),
    LogProb: ("log_probability", ("index",)),
}


def _bind_each(targets: list[Any], batch: int, index_of: Callable[[Name], int]) -> BoundTarget:
    if len(targets) != batch:
        raise TargetError(f"{len(targets)} targets for {batch} inputs; give one target, or one per input")
    targets = [Logit(t) if isinstance(t, (int, str)) and not isinstance(t, bool) else t for t in targets]
    types = {type(t) for t in targets}
    if len(types) != 1 or next(iter(types)) not in _KINDS:
        shown = ", ".join(sorted(t.__name__ for t in types))
        raise TargetError(
            f"cannot explain targets of type {shown}; give ints, labels, or one kind of Logit, LogitDiff, LogProb"
        )
    kind, fields = _KINDS[next(iter(types))]
    columns = [torch.tensor([index_of(getattr(t, name)) for t in targets]) for name in fields]
    return BoundTarget(kind, columns[0], columns[1] if len(columns) > 1 else None)


def _class_scores(outputs: Any) -> Tensor:
    logits = logits_of(outputs)
    if logits.dim() < 2:
        raise UnsupportedModel(
            f"the model returned logits of shape {tuple(logits.shape)}; (batch, classes) is needed, "
            "or give a callable target that turns the output into (batch,) numbers"
        )
    # dense outputs (batch, classes, height, width) are explained summed over their positions
    return logits if logits.dim() == 2 else logits.flatten(2).sum(2)


def _checked_scores(scores: Tensor) -> Tensor:
    if not isinstance(scores, Tensor) or scores.dim() != 1:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise TargetError(f"a callable target must return a (batch,) tensor, got {shape}")
    return scores
