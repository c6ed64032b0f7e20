"""A target whose indices are known, and how it comes of what a caller may write.

That is nothing, an int, a label, one per input, an object of `attrib.targets`, or a callable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from reprlib import repr as shortened
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrib.errors import TargetError, UnsupportedModel
from attrib.outputs import class_scores
from attrib.targets import Candidates, Logit, LogitDiff, LogProb, Name, Targets, TokenLogit


@dataclass(frozen=True)
class BoundTarget:
    """A target whose indices are known, or will be the top class of the first output it reads."""

    kind: str  # "logit", "difference", "log_probability", "predicted", "function"
    positive: Tensor | None = None  # (batch,) long
    negative: Tensor | None = None  # (batch,) long
    function: Callable[[Any], Tensor] | None = field(default=None, compare=False)
    places: tuple[int | None, ...] | None = None  # where the output is read, as the caller said it; None: as usual
    labels: int | None = None  # how many labels the model's classes have; None: it has none, or nobody asked

    def settled(self, outputs: Any) -> BoundTarget:
        """The same target with "predicted" replaced by the top class of `outputs`."""
        if self.kind != "predicted":
            return self
        return replace(self, kind="logit", positive=class_scores(outputs).argmax(1))

    def scores(self, outputs: Any, rows: Tensor | None = None) -> Tensor:
        """The explained number of each row; `rows[i]` is the sample that row i is a copy of."""
        if self.function is not None:
            return _checked_scores(self.function(outputs))
        logits = class_scores(outputs)
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
        if len(index) > len(logits) == 1:  # several targets of one input
            logits = logits.expand(len(index), -1)
        check_labels(self.labels, logits)
        highest = int(index.max())
        if highest >= logits.shape[1]:
            raise TargetError(
                f"target {highest} is out of range: the model has {logits.shape[1]} classes, 0 to {logits.shape[1] - 1}"
            )
        return logits.gather(1, index[:, None])[:, 0]

    def part(self, start: int, stop: int) -> BoundTarget:
        """The target of samples start to stop of the batch."""
        first, second = (None if i is None else i[start:stop] for i in (self.positive, self.negative))
        places = None if self.places is None else self.places[start:stop]
        return replace(self, positive=first, negative=second, places=places)

    def describe(self, label_of: Callable[[int], str], batch: int) -> list[dict[str, Any]]:
        """One plain dict per sample, fit for JSON: kind, index, label; position where it is read elsewhere."""
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
            if self.places is not None and self.places[i] is not None:
                row["position"] = self.places[i]
            rows.append(row)
        return rows


def check_labels(labels: int | None, logits: Tensor) -> None:
    """Raise UnsupportedModel where logits (batch, classes) are of more or fewer classes than there are labels."""
    if labels is not None and labels != logits.shape[1]:
        raise UnsupportedModel(
            f"the model has {logits.shape[1]} classes and {labels} labels; give attrib.wrap a label for each class"
        )


def bind(target: Targets, batch: int, index_of: Callable[[Name], int]) -> BoundTarget:
    """Resolve `target` for a batch; `index_of` turns a label into an index or raises TargetError.

    Of candidates, the rows of an input follow each other: there are batch × candidates of them.
    """
    if isinstance(target, Candidates):
        return _bind_each(list(target.targets) * batch, batch * len(target.targets), index_of)
    if target is None:
        return BoundTarget("predicted")
    if isinstance(target, (Tensor, np.ndarray)):
        target = _classes_in(target)
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
        counted = "1 target" if len(targets) == 1 else f"{len(targets)} targets"
        raise TargetError(f"{counted} for {batch} input{'s'[: batch - 1]}; give one target, or one per input")
    targets = [Logit(t) if _is_name(t) else t for t in targets]
    kind, fields = _kind_of(targets)
    columns = [torch.tensor([index_of(getattr(t, name)) for t in targets]) for name in fields]
    return BoundTarget(kind, columns[0], columns[1] if len(columns) > 1 else None)


def _kind_of(targets: Sequence[Any]) -> tuple[str, tuple[str, ...]]:
    """The row of `_KINDS` that all `targets` have in common. Raises TargetError where there is none."""
    if None in targets:
        raise TargetError("a list of targets has None in it; give each input its target, or None for all")
    for unknown in (t for t in targets if type(t) not in _KINDS):
        shown = f"of type {type(unknown).__name__}" if callable(unknown) else shortened(unknown)
        raise TargetError(
            f"cannot explain the target {shown}; give a whole number, a label, Logit, LogitDiff, LogProb, TokenLogit, "
            "or one callable for all inputs"
        )
    types = {type(t) for t in targets}
    if len(types) > 1:
        shown = " and ".join(sorted(t.__name__ for t in types))
        raise TargetError(f"targets of several kinds, {shown}, have no scale in common; give all of them as one kind")
    return _KINDS[types.pop()]


def _classes_in(target: Tensor | np.ndarray) -> int | list[int]:
    """The class that an array without dimensions holds, or those of one with one. Raises TargetError for others."""
    values = target.detach().cpu().numpy() if isinstance(target, Tensor) and target.dtype != torch.bfloat16 else target
    if not isinstance(values, np.ndarray) or values.ndim > 1 or values.dtype.kind not in "iu":
        raise TargetError(
            f"{target.dtype} numbers of shape {tuple(target.shape)} are no classes; give a whole number for each input"
        )
    classes: int | list[int] = values.tolist()
    return classes


def _is_name(target: Any) -> bool:
    return isinstance(target, (Integral, str)) and not isinstance(target, bool)  # numpy's integers too


def _checked_scores(scores: Tensor) -> Tensor:
    if not isinstance(scores, Tensor) or scores.dim() != 1:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise TargetError(f"a callable target must return a (batch,) tensor, got {shape}")
    return scores
