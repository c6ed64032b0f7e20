"""What a caller may ask to be explained: one number per sample, read from the model's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from attrib.errors import TargetError

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

_PLACED = (TokenLogit, LogitDiff, LogProb)


def candidates(target: Targets) -> int:
    """How many rows of the result every input gets."""
    return len(target.targets) if isinstance(target, Candidates) else 1


def positions(target: Targets) -> list[int | None] | None:
    """Where the output is read, one a candidate or input, None where the model is read anyway; None: nowhere else."""
    several = target.targets if isinstance(target, Candidates) else target
    each = list(several) if isinstance(several, (list, tuple)) else [several]
    found = [getattr(t, "position", -1) if isinstance(t, _PLACED) else -1 for t in each]
    return None if all(p == -1 for p in found) else [None if p == -1 else p for p in found]
