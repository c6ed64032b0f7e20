"""What is explained: one number per sample, read from the model's output.

`bind` turns what a caller may write (nothing, an int, a label, one per input, an object, a callable)
into a `BoundTarget` whose indices are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrib.errors import TargetError
from attrib.outputs import class_scores

Name = int | str


@dataclass(frozen=True)
class Logit:
    """The logit of one class (index or label)."""

    index: Name


@dataclass(frozen=True)
class LogitDiff:
    """logit(positive) − logit(negative): why this rather than that. position: as of TokenLogit."""

    positive: Name
    negative: Name
    position: int = -1


@dataclass(frozen=True)
class LogProb:
    """log softmax of one class. position: as of TokenLogit."""

    index: Name
    position: int = -1


@dataclass(frozen=True)
class TokenLogit:
    """The logit of a token at a position of a language model's output.

    position: of the input's tokens, where the output is read; negative ones count from its end. −1, the default, is
        where the model is read anyway: behind the last token, or at the one mask of a masked language model. A causal
        model at position p predicts token p + 1 from the tokens up to p; a masked one, token p.
    """

    token: Name
    position: int = -1


@dataclass(frozen=True, init=False)
class Candidates:
    """Several targets of every input: a row of the result for each, in order, from one forward where that is possible.

    Classes, tokens (" Paris", " London", …) or targets of one kind. The rows' values have one unit and one scale.
    """

    targets: tuple[Any, ...]

    def __init__(self, *targets: Name | Logit | LogitDiff | LogProb | TokenLogit) -> None:
        if not targets:
            raise TargetError("Candidates needs at least one target, such as Candidates(' Paris', ' London')")
        object.__setattr__(self, "targets", targets)


Target = None | int | str | Logit | LogitDiff | LogProb | TokenLogit | Candidates | Callable[[Any], Tensor]
Targets = Target | Sequence[Target] | Tensor | np.ndarray


@dataclass(frozen=True)
class BoundTarget:
    """A target whose indices are known, or will be the top class of the first output it reads."""

    kind: str  # "logit", "difference", "log_probability", "predicted", "function"
    positive: Tensor | None = None  # (batch,) long
    negative: Tensor | None = None  # (batch,) long
    function: Callable[[Any], Tensor] | None = field(default=None, compare=False)
    places: tuple[int | None, ...] | None = None  # where the output is read, as the caller said it; None: as usual

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


def candidates(target: Targets) -> int:
    """How many rows of the result every input gets."""
    return len(target.targets) if isinstance(target, Candidates) else 1


def positions(target: Targets) -> list[int | None] | None:
    """Where the output is read, one a candidate or input, None where the model is read anyway; None: nowhere else."""
    several = target.targets if isinstance(target, Candidates) else target
    each = list(several) if isinstance(several, (list, tuple)) else [several]
    found = [getattr(t, "position", -1) if isinstance(t, _PLACED) else -1 for t in each]
    return None if all(p == -1 for p in found) else [None if p == -1 else p for p in found]


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


_PLACED = (TokenLogit, LogitDiff, LogProb)
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
    if None in targets:
        raise TargetError("a list of targets has None in it; give each input its target, or None for all")
    types = {type(t) for t in targets}
    if len(types) != 1 or next(iter(types)) not in _KINDS:
        shown = ", ".join(sorted(t.__name__ for t in types))
        raise TargetError(
            f"cannot explain targets of type {shown}; give ints, labels, or one kind of Logit, LogitDiff, LogProb"
        )
    kind, fields = _KINDS[next(iter(types))]
    columns = [torch.tensor([index_of(getattr(t, name)) for t in targets]) for name in fields]
    return BoundTarget(kind, columns[0], columns[1] if len(columns) > 1 else None)


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
