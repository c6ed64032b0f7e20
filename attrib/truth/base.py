"""What a task with known truth is: inputs, a trained network, where the evidence lies, the proof that it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attrib.metrics.trial import Model

ENOUGH = 0.95


@dataclass(frozen=True)
class Proof:
    """One intervention: what was done to every held-out input, and how often the prediction did as it has to.

    share: of the inputs, 0 to 1. holds: whether that is enough to say that the network follows the rule.
    """

    intervention: str
    expected: str
    share: float

    @property
    def holds(self) -> bool:
        return self.share >= ENOUGH

    def __str__(self) -> str:
        return f"{self.intervention}: {self.expected} for {self.share:.1%}"


@dataclass(frozen=True, eq=False)
class Truth:
    """A network that was trained on a rule, and held-out inputs of which the rule says what matters.

    inputs: as `attrib.explain` takes them. targets: their classes, which the network predicts.
    masks: (batch, *sites) bool, what the class hangs on. seconds: of CPU time, for data, training
    and proofs. Of the position-only task alone, None elsewhere:
    twins: the same texts without what the mask holds, which is what makes them another class.
    on_positions: the share of the difference to the twins that positions make, by interventions.
    """

    name: str
    rule: str
    model: Model
    inputs: Any
    targets: list[int]
    masks: Tensor
    accuracy: float
    proofs: tuple[Proof, ...]
    seconds: float
    twins: Any = None
    on_positions: float | None = None

    @property
    def proven(self) -> bool:
        """Whether every intervention does what the rule says."""
        return all(proof.holds for proof in self.proofs)


@dataclass(frozen=True)
class Task:
    """A rule, and how its data and its network are made from a seed and a number of held-out inputs."""

    name: str
    rule: str
    make: Callable[[int, int], Truth]
