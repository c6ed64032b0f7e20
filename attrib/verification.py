"""Estimated effects against true ones: entries of a RelP or AtP result, patched for real.

The strongest entries tell whether what a reader looks at is true; entries drawn at random tell how far the whole
result can be trusted, for what the method missed may be drawn too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from attrib.attribution import Attribution
from attrib.errors import InputError, TargetError
from attrib.explain import explain
from attrib.methods.activation_patching import ActivationPatching
from attrib.patching.agreement import Coefficient, pearson, with_interval
from attrib.patching.effects import Effect
from attrib.patching.pair import Pair
from attrib.targets import LogitDiff, LogProb, Target, TokenLogit

if TYPE_CHECKING:
    from attrib.models.text import TextModel


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
        return pearson(*_columns(self.entries))

    def __str__(self) -> str:
        rows = [f"{e.site:16} {e.position:4} {e.estimated:10.4f} {e.true:10.4f}" for e in self.entries]
        head = f"{'site':16} {'pos.':>4} {self.method[:10]:>10} {'true':>10}"
        return "\n".join([head, *rows, f"Pearson's r over these {len(rows)}: {self.correlation:.3f}"])


@dataclass(frozen=True, eq=False)
class SampledCorrelation:
    """Agreement over entries drawn at random, in the order they were drawn; pairs: of which pair each is.

    pearson, spearman: with bootstrap percentile intervals at `confidence` over these entries, which were drawn without
    replacement from `population`: all sites at positions where the method found anything, of all pairs. A position
    where every estimate is exactly 0 (in a causal model, one before the first token that differs) has no effects at
    all and would only add agreement.
    """

    method: str
    pearson: Coefficient
    spearman: Coefficient
    confidence: float
    entries: tuple[Verified, ...]
    pairs: tuple[int, ...]
    population: int

    def __str__(self) -> str:
        found = {"Pearson's r": self.pearson, "Spearman's ρ": self.spearman}
        told = ", ".join(f"{name} {c.value:.3f} [{c.low:.3f}, {c.high:.3f}]" for name, c in found.items())
        return (
            f"{self.method} against activation patching on {len(self.entries)} of {self.population} entries, drawn at "
            f"random: {told} ({self.confidence:.0%} bootstrap intervals over entries)"
        )


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
    _check(inputs, result)
    chosen: list[Effect] = result.top(k, index)
    if index >= len(inputs):
        raise InputError(f"there is no pair {index}; {len(inputs)} were given")
    entries, true = _patched(model, inputs, result, target, index, chosen, on_progress)
    return Verification(result.method, entries, true)


def sampled_correlation(
    model: TextModel,
    inputs: Pair,
    result: Attribution,
    target: Target = None,
    *,
    sites: int = 50,
    seed: int = 0,
    confidence: float = 0.95,
    on_progress: Callable[[float, str], None] | None = None,
) -> SampledCorrelation:
    """How well a result of RelP or AtP agrees with true activation patching on a random sample of its entries.

    inputs, target: as of `verify_effects`. sites: how many entries (a site at a position of a pair) are drawn with
    `seed`, all of them where there are fewer. Costs as many patched runs, of which only what lies behind the patch is
    computed. Raises InputError and TargetError as `verify_effects` does, and where fewer than two entries can be drawn.
    """
    _check(inputs, result)
    if sites < 2 or not 0 < confidence < 1:
        raise InputError(f"sites = {sites}, confidence = {confidence}: give at least 2, and a share between 0 and 1")
    known = _entries_of(result)
    if len(known) < 2:
        raise InputError(f"{result.method} found no effect at any position, so there is nothing to compare")
    drawn = Random(seed).sample(range(len(known)), min(sites, len(known)))
    own = {which: [n for n in drawn if known[n][0] == which] for which in sorted({known[n][0] for n in drawn})}
    verified: dict[int, Verified] = {}
    for which, numbers in own.items():
        share = None if on_progress is None else _share(on_progress, len(verified), len(numbers), len(drawn))
        entries, _ = _patched(model, inputs, result, target, which, [known[n][1] for n in numbers], share)
        verified |= dict(zip(numbers, entries, strict=True))
    chosen = tuple(verified[n] for n in drawn)
    columns = _columns(chosen)
    return SampledCorrelation(
        result.method,
        with_interval(False, *columns, confidence, seed),
        with_interval(True, *columns, confidence, seed),
        confidence,
        chosen,
        tuple(known[n][0] for n in drawn),
        len(known),
    )


def _check(inputs: Pair, result: Attribution) -> None:
    if not isinstance(inputs, Pair):
        raise InputError(f"give the attrib.pair that the result explains, not a {type(inputs).__name__}")
    if result.kind == "edges":
        raise InputError("single entries of edges are not patched one by one; attrib.circuit runs the model on edges")
    if result.kind != "sites":
        raise InputError(f"a result of kind {result.kind!r} has no sites to patch; relp and attribution_patching have")
    if len(inputs) != len(result):
        raise InputError(f"{len(inputs)} pairs were given, the result explains {len(result)}")


def _entries_of(result: Attribution) -> list[tuple[int, Effect]]:
    """(pair, entry) of every site at each position that has any effect."""
    found = []
    for index, (clean, corrupted) in enumerate(
        zip(result.token_texts or (), result.corrupted_texts or (), strict=True)
    ):
        values = result.values[index, :, : len(clean)].nan_to_num()
        for position in (values != 0).any(0).nonzero()[:, 0].tolist():
            tokens = clean[position], corrupted[position]
            for site, value in zip(result.sites or (), values[:, position].tolist(), strict=True):
                found.append((index, Effect(site, position, *tokens, value)))
    return found


def _patched(
    model: TextModel,
    inputs: Pair,
    result: Attribution,
    target: Target,
    index: int,
    chosen: Sequence[Effect],
    on_progress: Callable[[float, str], None] | None,
) -> tuple[tuple[Verified, ...], Attribution]:
    """(the entries of pair `index` with their true effects, the result of activation patching)."""
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
    found = (Verified(*effect, float(true.values[0, places[effect.site], effect.position])) for effect in chosen)
    return tuple(found), true


def _columns(entries: Sequence[Verified]) -> tuple[Tensor, Tensor]:
    """(estimated, true), a number for each entry."""
    table = torch.tensor([[e.estimated, e.true] for e in entries], dtype=torch.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _share(on_progress: Callable[[float, str], None], done: int, own: int, total: int) -> Callable[[float, str], None]:
    return lambda fraction, message: on_progress((done + own * fraction) / total, message)


def target_of(described: dict[str, Any]) -> Target:
    """The target that a result says it has."""
    index, place = described.get("index"), described.get("position", -1)
    if described["kind"] == "difference":
        return LogitDiff(described["index"], described["versus"], place)
    if index is None:
        raise TargetError("the result's target is a function; give it to verify_effects as well")
    return LogProb(index, place) if described["kind"] == "log_probability" else TokenLogit(index, place)
