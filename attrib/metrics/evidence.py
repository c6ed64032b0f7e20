"""Four lights beside every map: does it account for the score, beat random maps, hang on the weights and the class?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from attrib.attribution import Attribution
from attrib.metrics.agreement import correlations
from attrib.metrics.base import Passes
from attrib.metrics.shape import entropy, gini, unaccounted

Verdict = Literal["passes", "fails", "not checked", "does not apply"]

ACCOUNTS, BETTER, WEIGHTS, CLASS = LIGHTS = (
    "accounts for the score",
    "better than random",
    "depends on the weights",
    "depends on the class",
)
AGREES = "agrees with activation patching"  # the one light of results on pairs of prompts
# what a light that fails says of the map
_FAILING = {
    ACCOUNTS: "leaves part of the score out",
    BETTER: "is not shown to be better than random",
    WEIGHTS: "hardly depends on the weights",
    CLASS: "hardly depends on the class",
    AGREES: "is not shown to agree with activation patching",
}
# beyond these a light fails. A map whose ranks correlate by more than √½ with those of a network with random layers has
# more than half of the variance of its ranks without what these layers learned. It is asked at every stage, for the
# layers near the output alone know of classes, and a network that is random as a whole may pass nothing on
LARGEST_ERROR = 0.05
LEAST_REACHED = 0.1  # of the score; less is a map of crumbs, however complete its ledger
LARGEST_P = 0.05
MOST_ALIKE_RANDOM_WEIGHTS = 0.5**0.5
MOST_ALIKE_OTHER_CLASS = 0.8

DRAWS = 19  # with 19 random maps a map that beats all has p = 1/20
STEPS = 8
STAGES, WEIGHT_DRAWS = 3, 3
SITES = 50
FORWARDS = 2 * (STEPS + 1) * (DRAWS + 1)


@dataclass(frozen=True)
class Light:
    """One question about one map.

    value: the number behind the verdict, comparison: what it stands beside: the bound, or the same of random maps.
    words: what both say.
    cost: what checking costs, where it was not done. curves: by name, over `at`, which `axis` names: deletion and
    insertion, of the map and of random maps, or the correlation while more and more layers are random.
    maps: by name, the other map that was compared, (height, width) or (tokens,); not part of `document`.
    """

    name: str
    verdict: Verdict
    words: str
    value: float | None = None
    comparison: float | None = None
    cost: str = ""
    at: tuple[float, ...] = ()
    curves: dict[str, tuple[float, ...]] = field(default_factory=dict)
    maps: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    axis: str = ""

    @property
    def failing(self) -> str:
        """What a light that fails says, to go on after "the map": hardly depends on the weights."""
        return _FAILING[self.name]


@dataclass(frozen=True)
class Evidence:
    """For every input of a result its four lights (of a pair of prompts one), and numbers that describe its map."""

    lights: tuple[tuple[Light, ...], ...]
    facts: tuple[dict[str, float | None], ...]  # sparseness, complexity and, of pictures, recovery

    def __len__(self) -> int:
        return len(self.lights)

    def light(self, name: str, index: int = 0) -> Light:
        """The light of that name of one input."""
        return next(light for light in self.lights[index] if light.name == name)

    @property
    def cost(self) -> str:
        """What `attrib.check` would cost for one input, in passes; empty where nothing is left to check."""
        names = {light.name for lights in self.lights for light in lights if light.verdict == "not checked"}
        return str(sum((cost for name, _, cost in (*DEAR, OF_PAIRS) if name in names), Passes())) if names else ""

    def __str__(self) -> str:
        return "\n".join(f"{light.name}: {light.verdict}. {light.words}" for lights in self.lights for light in lights)

    def document(self) -> dict[str, Any]:
        """Everything but the compared maps, as JSON can hold it."""
        lights = [[asdict(replace(light, maps={})) for light in each] for each in self.lights]
        for light in (light for each in lights for light in each):
            del light["maps"]
            light["curves"] = {name: [_finite(v) for v in curve] for name, curve in light["curves"].items()}
            light["value"], light["comparison"] = _finite(light["value"]), _finite(light["comparison"])
        return {"lights": lights, "facts": [dict(each) for each in self.facts]}


def evidence_of(result: Attribution) -> Evidence:
    """What a result says for and against itself, without any pass of the model; the rest is "not checked"."""
    if result.kind in ("sites", "edges"):
        return Evidence(((_of_pairs(result),),) * len(result), ({},) * len(result))
    lights = []
    accounted = _accounts(result)
    for row in range(len(result)):
        broken = not bool(result.values[row].isfinite().all())
        waiting = [Light(name, "not checked", words, cost=str(cost)) for name, words, cost in DEAR]
        if broken:
            waiting = [Light(light.name, "fails", "The map holds NaN or infinite values.") for light in waiting]
        lights.append((accounted[row], *waiting))
    return Evidence(tuple(lights), tuple(_facts(result, row) for row in range(len(result))))


def _of_pairs(result: Attribution) -> Light:
    name, words, cost = OF_PAIRS
    if result.kind == "edges":
        words = "Single edges are not patched one by one; attrib.circuit runs the model on the strongest."
    elif result.method == "activation_patching":
        words = "It is activation patching itself."
    elif not bool(result.values.nan_to_num(posinf=0.0, neginf=0.0).eq(result.values).all()):
        return Light(name, "fails", "The effects hold NaN or infinite values.")
    else:
        return Light(name, "not checked", words, cost=str(cost))
    return Light(name, "does not apply", words)


def _accounts(result: Attribution) -> list[Light]:
    share = unaccounted(result)
    if share is None:
        words = "The method makes no claim that its numbers add up to the score."
        return [Light(ACCOUNTS, "does not apply", words)] * len(result)
    return [_accounted(float(error), result, row) for row, error in enumerate(share)]


def _accounted(error: float, result: Attribution, row: int) -> Light:
    good = error <= LARGEST_ERROR  # NaN is not
    light = Light(ACCOUNTS, "passes" if good else "fails", "", error, LARGEST_ERROR)
    words = f"{error:.2%} of the score is left over; up to {LARGEST_ERROR:.0%} passes."
    reached = _reached(result, row)
    if reached is None or not math.isfinite(error):
        return replace(light, words=words)
    if good and abs(reached) < LEAST_REACHED:
        words = (
            f"Only {reached:.2g} of the score is on the map, the rest is booked in the ledger. Less than "
            f"{LEAST_REACHED:.0%} of the score fails, though no more than {error:.2%} is left over."
        )
        return replace(light, verdict="fails", value=abs(reached), comparison=LEAST_REACHED, words=words)
    words += f" {reached:.2g} of it reached the input, the rest is booked in the ledger."
    return replace(light, words=words)


def _reached(result: Attribution, row: int) -> float | None:
    """The share of the score that the ledger says is on the map."""
    score = float(result.score[row])
    if result.ledger is None or not score:
        return None
    return sum(float(result.ledger[name][row]) for name in ("input", "position") if name in result.ledger) / score


# name, question, cost for one input
DEAR: tuple[tuple[str, str, Passes], ...] = (
    (BETTER, "Whether removing what it marks changes the prediction more than removing at random.", Passes(FORWARDS)),
    (WEIGHTS, "Whether the map changes when the weights are random.", Passes(explanations=STAGES * WEIGHT_DRAWS)),
    (CLASS, "Whether the map changes when another class is asked for.", Passes(1, 1)),
)
OF_PAIRS = (AGREES, "Whether activation patching finds the same effects at sites drawn at random.", Passes(SITES))


def _facts(result: Attribution, row: int) -> dict[str, float | None]:
    values = result.values[row : row + 1].detach().cpu().double()
    if not values.isfinite().all():
        return {"sparseness": None, "complexity": None}
    pictured = result.kind in ("input", "layer")
    maps = torch.from_numpy(result.heatmap()[row : row + 1]) if pictured else values
    facts = {"sparseness": _finite(float(gini(maps))), "complexity": _finite(float(entropy(maps)))}
    if pictured and result.pictures is not None and tuple(maps.shape[1:]) == result.pictures.shape[1:3]:
        grey = torch.from_numpy(result.pictures[row : row + 1].astype(np.float64)).mean(3)
        facts["recovery"] = _finite(float(correlations(maps, grey).abs()))
    return facts


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
