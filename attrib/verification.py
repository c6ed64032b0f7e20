"""Estimated effects against true ones: the strongest entries of a RelP or AtP result, patched for real."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from attrib.attribution import Attribution
from attrib.errors import InputError, TargetError
from attrib.explain import explain
from attrib.methods.activation_patching import ActivationPatching
from attrib.patching.pair import Pair
from attrib.targets import LogitDiff, LogProb, Target, TokenLogit

if TYPE_CHECKING:
    from attrib.models.text import TextModel
    from attrib.patching.effects import Effect


class Verified(NamedTuple):
    """One entry: a site at a position, whose tokens in both prompts are given, in the metric's units."""

    site: str
    position: int
    clean: str
    corrupted: str
    estimated: float
    true: float


@dataclass(frozen=True, eq=False)
class Verification:
    """Entries, strongest estimate first. true: the whole result of activation patching, NaN where nothing was run."""

    method: str
    entries: tuple[Verified, ...]
    true: Attribution

    @property
    def correlation(self) -> float:
        """Pearson's r of estimated and true effects; NaN where one of them does not vary.

        It is over the strongest estimates alone: effects that the method missed are not among them.
        """
        pairs = torch.tensor([[e.estimated, e.true] for e in self.entries], dtype=torch.float64).reshape(-1, 2)
        estimated, true = (pairs - pairs.mean(0)).T
        size = float(estimated.norm() * true.norm())
        return float(estimated @ true) / size if len(pairs) > 1 and size > 0 else math.nan

    def __str__(self) -> str:
        rows = [f"{e.site:16} {e.position:4} {e.estimated:10.4f} {e.true:10.4f}" for e in self.entries]
        head = f"{'site':16} {'pos.':>4} {self.method[:10]:>10} {'true':>10}"
        return "\n".join([head, *rows, f"Pearson's r over these {len(rows)}: {self.correlation:.3f}"])


def verify_effects(
    model: TextModel,
    inputs: Pair,
    result: Attribution,
    target: Target = None,
    *,
    k: int = 20,
    index: int = 0,
    on_progress: Callable[[float, str], None] | None = None,
) -> Verification:
    """Run activation patching for the k strongest entries of pair `index` of a result of RelP or AtP.

    inputs, target: what the result explains; target: None takes the result's own, which only a function cannot be.
    Raises InputError for a result of another pair or kind, TargetError where the target has to be given.
    """
    if not isinstance(inputs, Pair):
        raise InputError(f"give the attrib.pair that the result explains, not a {type(inputs).__name__}")
    if result.kind == "edges":
        raise InputError("single entries of edges are not patched one by one; attrib.circuit runs the model on edges")
    chosen: list[Effect] = result.top(k, index)
    if index >= len(inputs):
        raise InputError(f"there is no pair {index}; {len(inputs)} were given")
    one = Pair(inputs.clean[index : index + 1], inputs.corrupted[index : index + 1])
    method = ActivationPatching(
        sites=tuple(dict.fromkeys(effect.site for effect in chosen)),
        direction=str(result.provenance.settings.get("direction", "denoising")),
        only=tuple(f"{effect.site}@{effect.position}" for effect in chosen),
    )
    wanted = target_of(result.target[index]) if target is None else target
    true = explain(model, one, method, wanted, on_progress=on_progress)
    if true.provenance.input_hashes[0] != result.provenance.input_hashes[index]:
        raise InputError(f"the result explains another pair than the one given at {index}")
    places = {name: i for i, name in enumerate(true.sites or ())}
    entries = [Verified(*effect, float(true.values[0, places[effect.site], effect.position])) for effect in chosen]
    return Verification(result.method, tuple(entries), true)


def target_of(described: dict[str, Any]) -> Target:
    """The target that a result says it has."""
    index, place = described.get("index"), described.get("position", -1)
    if described["kind"] == "difference":
        return LogitDiff(described["index"], described["versus"], place)
    if index is None:
        raise TargetError("the result's target is a function; give it to verify_effects as well")
    return LogProb(index, place) if described["kind"] == "log_probability" else TokenLogit(index, place)
