"""The light of results on pairs of prompts: do estimated effects agree with true ones?"""

from __future__ import annotations

import math
from typing import Any

from attrib.attribution import Attribution
from attrib.chunks import Progress
from attrib.errors import InputError
from attrib.metrics.evidence import AGREES, SITES, Evidence, Light, evidence_of
from attrib.patching.pair import Pair
from attrib.verification import SampledCorrelation, sampled_correlation


def check_pairs(
    model: Any, inputs: Pair, result: Attribution, target: Any, seed: int, on_progress: Progress | None
) -> Evidence:
    """Every pair by itself: activation patching at sites drawn at random, against what the result says of them."""
    if len(inputs) != len(result):
        raise InputError(f"{len(inputs)} pairs were given, the result explains {len(result)}")
    told = evidence_of(result)
    lights = []
    for i in range(len(result)):
        light = told.lights[i][0]
        lights.append((light if light.verdict != "not checked" else _checked(model, inputs, result, target, seed, i),))
        if on_progress is not None:
            on_progress((i + 1) / len(result), f"checking: {AGREES}")
    return Evidence(tuple(lights), told.facts)


def _checked(model: Any, inputs: Pair, result: Attribution, target: Any, seed: int, i: int) -> Light:
    one = Pair(inputs.clean[i : i + 1], inputs.corrupted[i : i + 1])
    own = target[i] if isinstance(target, (list, tuple)) else target
    try:
        return _light(sampled_correlation(model, one, result[i], own, sites=SITES, seed=seed))
    except InputError as error:
        if "found no effect" not in str(error):
            raise
        return Light(AGREES, "does not apply", "The two prompts differ in nothing that the method finds an effect of.")


def _light(found: SampledCorrelation) -> Light:
    r = found.pearson
    if not math.isfinite(r.value):
        return Light(AGREES, "does not apply", "The effects of the sites drawn do not vary.")
    words = (
        f"Pearson's r with the true effects of {len(found.entries)} sites drawn at random from {found.population} is "
        f"{r.value:.2f}, {r.low:.2f} to {r.high:.2f} by bootstrap; unrelated numbers have 0, and up to there it fails."
    )
    return Light(AGREES, "passes" if r.low > 0 else "fails", words, r.value, 0.0)
