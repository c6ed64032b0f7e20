"""`attrib.check`: the lights of a result that ask the model again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrib.attribution import Attribution
from attrib.chunks import Progress
from attrib.errors import InputError
from attrib.methods.base import Method
from attrib.metrics.base import Measured, Subject
from attrib.metrics.checking_pairs import check_pairs
from attrib.metrics.evidence import (
    BETTER,
    CLASS,
    DRAWS,
    FORWARDS,
    LARGEST_P,
    MOST_ALIKE_OTHER_CLASS,
    MOST_ALIKE_RANDOM_WEIGHTS,
    STAGES,
    STEPS,
    WEIGHT_DRAWS,
    WEIGHTS,
    Evidence,
    Light,
    Verdict,
    evidence_of,
)
from attrib.metrics.randomisation import ParameterRandomisation, RandomLogit
from attrib.metrics.references import references
from attrib.metrics.remade import method_of, target_of
from attrib.metrics.removal import Deletion, Insertion
from attrib.metrics.scoring import BROKEN, CONSTANT, scored
from attrib.metrics.statistics import among
from attrib.metrics.subjects import subject_of
from attrib.metrics.trial import Model, Trial
from attrib.patching.pair import Pair


def check(
    model: Model,
    inputs: Any,
    result: Attribution,
    method: Method | None = None,
    *,
    target: Any = None,
    seed: int = 0,
    max_memory: int | None = None,
    on_progress: Progress | None = None,
) -> Evidence:
    """All four lights of a result: the dear ones ask the model again.

    model, inputs: those that were explained, an `attrib.pair` too; InputError where hashes say otherwise.
    method: as it was set; None: made again from the result's provenance, InputError where that cannot be done (a
        tensor as baseline, say).
    target: only needed where it was a callable, which a result does not hold.
    """
    if isinstance(inputs, Pair):
        return check_pairs(model, inputs, result, target, seed, on_progress)
    method = method or method_of(result)
    encoded = model.encode(inputs)
    if tuple(encoded.hashes) != result.provenance.input_hashes:
        raise InputError("these are not the inputs that were explained: their hashes differ")
    if model.weights_hash != result.provenance.weights_hash:
        raise InputError(f"this is not the model that was explained: the weights of {model.name} differ")
    trial = Trial.of(model, encoded, target_of(result, target), FORWARDS, seed=seed, max_memory=max_memory)
    subject = subject_of(trial, method, result)
    cheap, found = evidence_of(result), []
    for place, (name, judge) in enumerate(_JUDGES.items()):
        trial.on_progress = _part(on_progress, name, place)
        trial.on_progress(0.0)
        found.append(judge(trial, subject))
    if on_progress is not None:
        on_progress(1.0, "checked")
    lights = [(cheap.lights[row][0], *each) for row, each in enumerate(zip(*found, strict=True))]
    for row in range(len(trial)):
        if int(trial.allowed[row].sum()) == 1 and bool(subject.maps[row].isfinite().all()):
            lights[row] = (lights[row][0], *(Light(name, "does not apply", _SINGLE) for name in _JUDGES))
    return Evidence(tuple(lights), cheap.facts)


_SINGLE = "There is one token only: a map of it puts nothing before anything else."


def _beats(trial: Trial, subject: Subject) -> list[Light]:
    """Insertion − deletion area among those of random maps, half of them noise and half of them smooth regions."""
    metrics = (Deletion(STEPS), Insertion(STEPS))
    random = references(trial, DRAWS)
    kinds = [draws for name, draws in random.items() if name.startswith("random")]
    draws = [draw for pair in zip(*kinds, strict=True) for draw in pair][:DRAWS]
    own = [scored(metric, trial, subject) for metric in metrics]
    others = []
    for place, draw in enumerate(draws):
        others.append([scored(metric, trial, draw) for metric in metrics])
        trial.on_progress((place + 1) / len(draws))
    return [_beat(own, others, row) for row in range(len(trial))]


def _beat(own: list[Measured], others: list[list[Measured]], row: int) -> Light:
    value = _gain(own, row)
    if not math.isfinite(value):
        said = next((words for m in own for words in m.words[row : row + 1] if words), "there is no number")
        return Light(BETTER, _without_number(said), said[0].upper() + said[1:] + ".")
    random = np.array([_gain(other, row) for other in others])
    p, mean = among(value, random), float(np.nanmean(random))
    as_good = int((random >= value).sum())
    words = (
        f"Insertion less deletion is {_told(value)}; {as_good} of {len(random)} random maps, {_told(mean)} on average, "
        f"do as well (p\u00a0=\u00a0{p:.2f})."
    )
    curves = {m: _curve(own[k], row) for k, m in enumerate(("deletion", "insertion"))}
    for k, name in enumerate(("deletion", "insertion")):
        each = [o[k].curve[row] for o in others if o[k].curve is not None]  # type: ignore[index]
        curves[f"{name} of random maps"] = tuple(torch.stack(each).mean(0).tolist())
    verdict: Verdict = "passes" if p <= LARGEST_P else "fails"
    return Light(BETTER, verdict, words, value, mean, at=own[0].at, curves=curves, axis=own[0].axis)


def _gain(measured: list[Measured], row: int) -> float:
    return float(measured[1].values[row] - measured[0].values[row])


def _weights(trial: Trial, subject: Subject) -> list[Light]:
    """The stage counts at which the maps are most alike: random layers anywhere have to change the map."""
    measured = scored(ParameterRandomisation(stages=STAGES, draws=WEIGHT_DRAWS), trial, subject)
    if measured.curve is None:
        return [_alike(WEIGHTS, measured, row, "", MOST_ALIKE_RANDOM_WEIGHTS, {}) for row in range(len(trial))]
    worst = measured.curve.nan_to_num(nan=-1.0).argmax(1)
    values = torch.where(measured.values.isfinite(), measured.curve[range(len(trial)), worst], torch.nan)
    maps = {} if measured.other is None else {"with random weights": measured.other}
    lights = []
    for row, stage in enumerate(worst.tolist()):
        words = (
            f"With {measured.at[stage]:.0%} of the layers random, those nearest to the output, the map has, signs "
            "aside, a rank correlation of {value} with this one. Unrelated maps have 0; above "
            f"{MOST_ALIKE_RANDOM_WEIGHTS:.2f} more than half of its order needs nothing they learned, and it fails."
        )
        lights.append(_alike(WEIGHTS, replace(measured, values=values), row, words, MOST_ALIKE_RANDOM_WEIGHTS, maps))
    return lights


def _class(trial: Trial, subject: Subject) -> list[Light]:
    measured = scored(RandomLogit(), trial, subject)
    words = (
        "The map of another class, drawn at random, has a rank correlation of {value} with this one; "
        f"above {MOST_ALIKE_OTHER_CLASS} it fails."
    )
    maps = {} if measured.other is None else {"of another class": measured.other}
    return [_alike(CLASS, measured, row, words, MOST_ALIKE_OTHER_CLASS, maps) for row in range(len(trial))]


def _alike(name: str, measured: Measured, row: int, words: str, most: float, maps: dict[str, Tensor]) -> Light:
    value = float(measured.values[row])
    own = {what: each[row].numpy() for what, each in maps.items()}
    if not math.isfinite(value):
        said = (measured.words[row] if measured.words else "") or "one of the two maps is constant"
        return Light(name, _without_number(said), said[0].upper() + said[1:] + ".", maps=own)
    curves = {"rank correlation": _curve(measured, row)} if measured.at else {}
    said = words.format(value=_told(value))
    verdict: Verdict = "passes" if value <= most else "fails"
    return Light(name, verdict, said, value, most, at=measured.at, curves=curves, maps=own, axis=measured.axis)


def _told(value: float) -> str:
    """Two digits, and a minus sign that is one; never −0.00."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _without_number(said: str) -> Verdict:
    """A map that is no map fails; a question that has no meaning for it does not apply."""
    return "fails" if said in (BROKEN, CONSTANT) else "does not apply"


_JUDGES: dict[str, Callable[[Trial, Subject], list[Light]]] = {BETTER: _beats, WEIGHTS: _weights, CLASS: _class}


def _curve(measured: Measured, row: int) -> tuple[float, ...]:
    return () if measured.curve is None else tuple(measured.curve[row].tolist())


def _part(on_progress: Progress | None, name: str, place: int) -> Callable[[float], None]:
    if on_progress is None:
        return lambda fraction: None
    furthest = [0.0]  # deletion and insertion each begin anew

    def told(fraction: float) -> None:
        furthest[0] = max(furthest[0], min(1.0, fraction))
        on_progress((place + furthest[0]) / len(_JUDGES), f"checking: {name}")

    return told
