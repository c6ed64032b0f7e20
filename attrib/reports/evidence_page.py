"""The page of evidence: methods × metrics with their intervals beside random maps, the lights, and the worst items."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attrib.metrics import METRICS
from attrib.metrics.statistics import interval, sign_flip
from attrib.metrics.summary import CHANCE_IS_BEST
from attrib.reports.entry_files import page_path
from attrib.reports.evidence import lights_of
from attrib.reports.pages import TARGETS, rendered, short
from attrib.reports.store import Input, Row

EVIDENCE = "evidence.html"
WORST = 5
_SIGN = {"higher": 1.0, "lower": -1.0, "neither": 0.0}
_CONFIDENCE = 0.95

Place = tuple[str, str, str]  # model, target, method


@dataclass
class Tally:
    """One method's numbers of one metric: 16 bytes an item; and the worst of them with their items."""

    values: array[float] = field(default_factory=lambda: array("d"))
    random: array[float] = field(default_factory=lambda: array("d"))
    worst: list[tuple[float, int, float, str, str]] = field(default_factory=list)
    silent: int = 0  # items without a number
    words: str = ""  # why, the first time

    def add(self, score: dict[str, Any], sign: float, it: Input) -> None:
        value = score["value"]
        if value is None:
            self.silent += 1
            self.words = self.words or score["words"]
            return
        self.values.append(value)
        self.random.append(float("nan") if score["random"] is None else score["random"])
        entry = (-sign * value, -it.position, value, it.name, it.item)
        (heapq.heappush if len(self.worst) < WORST else heapq.heappushpop)(self.worst, entry)


@dataclass
class EvidenceView:
    """What the rows of a report say of their maps; rows are added one item at a time."""

    metrics: dict[tuple[Place, str], Tally] = field(default_factory=dict)
    lights: dict[tuple[Place, str], dict[str, int]] = field(default_factory=dict)
    failing: dict[tuple[Place, str], list[tuple[str, str]]] = field(default_factory=dict)  # page and name, the first

    def add(self, it: Input, rows: Sequence[Row]) -> None:
        """All rows of one item."""
        for row in rows:
            if row.failed or not row.evidence:
                continue
            place = (row.model, row.target, row.method)
            for name, score in row.evidence["metrics"].items():
                self.metrics.setdefault((place, name), Tally()).add(score, _SIGN[METRICS[name].better], it)
            for light in lights_of(row.evidence):
                counts = self.lights.setdefault((place, light.name), {})
                counts[light.verdict] = counts.get(light.verdict, 0) + 1
                if light.verdict == "fails" and counts["fails"] <= WORST:
                    named = (page_path(it.item), short(it.name, 40))
                    self.failing.setdefault((place, light.name), []).append(named)

    def __bool__(self) -> bool:
        return bool(self.metrics or self.lights)


def render_evidence(title: str, view: EvidenceView) -> bytes:
    """The page: a pure function of what was added."""
    return rendered("evidence.html", title=title, lights=_lights(view), metrics=_metrics(view))


def _lights(view: EvidenceView) -> dict[str, Any]:
    names = list(dict.fromkeys(name for _, name in view.lights))
    places = list(dict.fromkeys(place for place, _ in view.lights))
    titles = _titles(places)
    rows = [
        (
            titles[place],
            [(*_counted(view.lights.get(of, {})), view.failing.get(of, [])) for of in ((place, n) for n in names)],
        )
        for place in places
    ]
    return {"names": names, "rows": rows}


def _counted(counts: dict[str, int]) -> tuple[str, str]:
    """(kind for the colour, words): "fails for 3 of 7"."""
    judged = counts.get("passes", 0) + counts.get("fails", 0)
    if counts.get("fails"):
        return "fails", f"✕ fails for {counts['fails']} of {judged}"
    if judged:
        return "passes", f"✓ passes for all {judged}"
    return "open", "– " + next(iter(counts), "nothing")


def _metrics(view: EvidenceView) -> list[dict[str, Any]]:
    found = []
    for name in dict.fromkeys(name for _, name in view.metrics):
        metric = METRICS[name]
        card, better = metric.card, metric.better
        titles = _titles([place for place, own in view.metrics if own == name])
        tallies = {place: tally for (place, own), tally in view.metrics.items() if own == name}
        found.append(
            {
                "anchor": name,
                "title": card.title,
                "question": card.question,
                "misleads": card.misleads,
                "better": {"neither": "describes, and does not judge"}.get(better, f"{better} is better"),
                "rows": [
                    _row(titles[place], tally, _SIGN[better], metric.chance_is_best) for place, tally in tallies.items()
                ],
            }
        )
    return found


def _row(title: str, tally: Tally, sign: float, chance_is_best: bool) -> dict[str, Any]:
    values, random = np.array(tally.values), np.array(tally.random)
    bounds = interval(values, _CONFIDENCE, 0) if len(values) else None
    known = random[np.isfinite(random)]
    worst = sorted(tally.worst, reverse=True) if sign else []
    return {
        "name": title,
        "mean": f"{values.mean():.3g}" if len(values) else "no number",
        "interval": "" if bounds is None else f"{bounds[0]:.3g} to {bounds[1]:.3g}",
        "random": f"{known.mean():.3g}" if len(known) else "",
        "verdict": _verdict(sign * (values - random), sign, chance_is_best) if len(known) else "",
        "count": len(values),
        "silent": f"{tally.silent} without a number: {short(tally.words)}" if tally.silent else "",
        "worst": [(page_path(item), short(name, 40), f"{value:.3g}") for _, _, value, name, item in worst],
    }


def _verdict(gains: np.ndarray, sign: float, chance_is_best: bool) -> str:
    """By a paired sign-flip test over the items."""
    if chance_is_best:
        return CHANCE_IS_BEST
    p, least = sign_flip(gains, 0) if sign else None, 0.5 ** np.isfinite(gains).sum()
    if p is None:
        return ""
    if least > 1 - _CONFIDENCE:
        return f"too few items for a verdict (no p is below {least:.2g})"
    return f"{'better than' if p <= 0.05 else 'not shown to be better than'} random (p = {p:.2g})"


def _titles(places: Sequence[Place]) -> dict[Place, str]:
    """What each is called: its method, and the model and the target where there are several."""
    models, targets = ({place[i] for place in places} for i in (0, 1))
    return {
        (model, target, method): " · ".join(
            [
                method,
                *([short(model, 40)] if len(models) > 1 else []),
                *([TARGETS.get(target, short(target, 40))] if len(targets) > 1 else []),
            ]
        )
        for model, target, method in places
    }
