"""What a report measures of its maps where its spec asks for it: the four lights, and metrics beside random maps.

All of it is computed with the row that it is of, and kept in the same transaction: so it is resumed and verified with
it, and the pages only read it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attrib.attribution import Attribution
from attrib.chunks import Progress
from attrib.errors import AttribError, Cancelled, InputError, NotApplicable, UnknownName
from attrib.methods.base import Method
from attrib.metrics import METRICS, metric_named
from attrib.metrics.base import Passes
from attrib.metrics.checking import check
from attrib.metrics.evaluate import cost, evaluate
from attrib.metrics.evidence import BETTER, DEAR, Evidence, Light
from attrib.models.text import TextModel
from attrib.models.vision import VisionModel

LIGHTS = "lights"  # beside the names of metrics: all four lights, the dear ones too
RANDOM_MAPS = 3  # of each kind, that every metric is compared with

Maps = Mapping[str, np.ndarray]  # "LIGHT/WORDS" → the map that the light compared, (height, width) or (tokens,)


@dataclass(frozen=True)
class Measurement:
    """What was measured of one map. document: what `Row.evidence` holds. maps: those that lights compared it with."""

    document: dict[str, Any] = field(default_factory=dict)
    maps: Maps = field(default_factory=dict)


def told_cost(names: Sequence[str], model: VisionModel | TextModel) -> str:
    """What measuring costs for one map, before anything runs; empty where nothing is measured."""
    if not names:
        return ""
    lights = sum((passes for _, _, passes in DEAR), Passes()) if LIGHTS in names else Passes()
    total = lights + cost(model, [None], [name for name in names if name != LIGHTS], RANDOM_MAPS)
    return f"evidence: about {total} per map of {model.name}"


def check_evidence(names: Sequence[str]) -> None:
    """Raises UnknownName or InputError for what no report can measure."""
    known = [LIGHTS, *(name for name, metric in METRICS.items() if not metric.needs_mask)]
    for name in names:
        if name in METRICS and name not in known:
            raise InputError(f"evidence = {name!r}: it needs masks of where the object is, which a report has not")
        if name not in known:
            raise UnknownName("evidence", name, known)


def check_kind(names: Sequence[str], kind: str) -> None:
    """Raises NotApplicable for metrics that have no meaning for this kind of input."""
    for name in names:
        if name != LIGHTS and kind not in METRICS[name].applies_to:
            raise NotApplicable(f"the metric {name} has no meaning for {kind}s; leave it out of the report's evidence")


def measured(
    names: Sequence[str], model: VisionModel | TextModel, inputs: Any, result: Attribution, method: Method,
    targets: list[Any], on_progress: Progress | None,
) -> list[Measurement]:  # fmt: skip
    """For every input of the result what is measured of it; a metric that fails says why in its place."""
    found: list[dict[str, Any]] = [{"metrics": {}} for _ in range(len(result))]
    evidence = result.evidence
    if LIGHTS in names:
        try:
            evidence = check(model, inputs, result, method, on_progress=on_progress)
        except Cancelled:
            raise
        except AttribError as error:
            for one in found:
                one["problem"] = str(error)[:500]
    document = evidence.document()
    for one, lights, facts in zip(found, document["lights"], document["facts"], strict=True):
        one |= {"lights": lights, "facts": facts}
    for name in names:
        if name != LIGHTS:
            for one, value in zip(found, _scores(name, model, inputs, method, targets, on_progress), strict=True):
                one["metrics"][name] = value
    for one in found:
        one["lights"] = [_beside_metrics(light, one["metrics"]) for light in one["lights"]]
    return [Measurement(one, _maps(evidence, result, row)) for row, one in enumerate(found)]


def _beside_metrics(light: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """The light on random maps, where it was not checked and the metrics it is made of were measured: their words."""
    known = [(name, metrics[name]) for name in ("deletion", "insertion") if name in metrics]
    known = [(name, each) for name, each in known if each["value"] is not None and each["random"] is not None]
    if light["name"] != BETTER or light["verdict"] != "not checked" or not known:
        return light
    each = [f"{name} is {one['value']:.3g}, of random maps {one['random']:.3g}" for name, one in known]
    words = f"{'; '.join(each)}. So few random maps allow no verdict on one map; the evidence page tests all together."
    return light | {"words": words[0].upper() + words[1:]}


def _maps(evidence: Evidence, result: Attribution, row: int) -> Maps:
    length = None if result.token_texts is None else len(result.token_texts[row])  # without the batch's padding
    return {
        f"{light.name}/{words}": np.ascontiguousarray(values[..., :length], dtype=np.float32)
        for light in evidence.lights[row]
        for words, values in light.maps.items()
    }


def _scores(
    name: str, model: VisionModel | TextModel, inputs: Any, method: Method, targets: list[Any], on: Progress | None
) -> list[dict[str, Any]]:
    """For every input: value, the mean of random maps ("random"), and words where there is no number."""
    try:
        rows = evaluate(model, inputs, method, name, targets, n_random=RANDOM_MAPS, on_progress=on).rows
    except Cancelled:
        raise
    except AttribError as error:
        return [{"value": None, "random": None, "words": str(error)[:500]}] * len(targets)
    return [
        {"value": _finite(row.value), "random": _finite(_random(row.references)), "words": row.words} for row in rows
    ]


def _random(references: dict[str, float]) -> float:
    """The mean of both kinds of random maps."""
    known = [references[name] for name in ("random", "random_regions") if name in references]
    known = [value for value in known if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def lights_of(evidence: dict[str, Any], maps: Maps | None = None) -> tuple[Light, ...]:
    """The lights that a row holds, with the maps that they compared it with."""
    return tuple(_light(document, maps or {}) for document in evidence.get("lights", ()))


def _light(document: dict[str, Any], maps: Maps) -> Light:
    curves = {
        name: tuple(math.nan if v is None else float(v) for v in curve) for name, curve in document["curves"].items()
    }
    start = f"{document['name']}/"
    own = {name.removeprefix(start): values for name, values in maps.items() if name.startswith(start)}
    return Light(**{**document, "at": tuple(document["at"]), "curves": curves, "maps": own})


def told(evidence: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """(metric, its number beside that of random maps) for a card."""
    found = []
    for name, score in evidence.get("metrics", {}).items():
        if score["value"] is None:
            found.append((metric_named(name).card.title, score["words"] or "no number"))
        else:
            beside = "" if score["random"] is None else f" (random maps: {score['random']:.3g})"
            found.append((metric_named(name).card.title, f"{score['value']:.3g}{beside}"))
    return tuple(found)


def difference(now: dict[str, Any], before: dict[str, Any], tolerance: float) -> str:
    """What differs between the evidence of a row now and before, in words; empty where nothing does.

    A map that differs by rounding may put two pixels in the other order: numbers are compared to `tolerance`.
    """
    pairs = [(name, now["metrics"].get(name, {}).get("value"), score["value"]) for name, score in _metrics(before)]
    own = {light["name"]: light for light in now["lights"]}
    pairs += [(light["name"], own[light["name"]]["value"], light["value"]) for light in before["lights"]]
    for name, one, other in pairs:
        if (one is None) != (other is None):
            return f"{name} is {one}, not {other}"
        if one is not None and other is not None and abs(one - other) > tolerance * max(1.0, abs(other)):
            return f"{name} is {one:.4g}, not {other:.4g}"
    return ""


def _metrics(evidence: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(evidence["metrics"].items())
