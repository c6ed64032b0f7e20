"""What a report of the app is asked to hold, and what is wrong with that before anything is kept of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import attrib
from app import offers, questions
from app.catalogue import Catalogue, kinds_of

MOST_TARGETS = 8
LONGEST_TARGET = 200


@dataclass(frozen=True)
class ReportAsk:
    """One report. kind: "image" or "text". methods: name → values of its controls. targets: none: the input's own.

    columns: text and target → what they are called in a table. inputs: (file, name it was uploaded under, sha256).
    evidence: what is measured of every map, names from `measurable`.
    """

    model: str
    kind: str
    methods: Mapping[str, Mapping[str, Any]]
    targets: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[tuple[str, str, str], ...] = ()
    evidence: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> ReportAsk:
        """Raises ValueError, KeyError or TypeError for what `to_json` has not written."""
        known = json.loads(text)
        known["targets"], known["inputs"] = tuple(known["targets"]), tuple(map(tuple, known["inputs"]))
        known["evidence"] = tuple(known.get("evidence", ()))  # requests of before there was any
        return ReportAsk(**known)

    def made(self) -> list[Any]:
        """The methods as objects. Raises attrib's errors for names and settings that nobody knows."""
        return [questions.method_of(name, values, self.kind) for name, values in self.methods.items()]


def kind_of(catalogue: Catalogue, model: str) -> str:
    """What a model on offer explains. Raises attrib.UnknownName, and InputError where only loading it would tell."""
    if model not in catalogue.names:
        raise attrib.UnknownName("model for reports", str(model)[:200], catalogue.names)
    kinds = [kind for kind in ("image", "text") if kind in kinds_of(model)]
    return kinds[0] if len(kinds) == 1 else str(catalogue[model].kind)


def checked(
    catalogue: Catalogue,
    model: str,
    methods: Sequence[tuple[str, Mapping[str, Any]]],
    targets: str | None,
    evidence: Sequence[str] = (),
) -> ReportAsk:
    """The question without its inputs. targets: one on each line."""
    kind = kind_of(catalogue, model)
    measures = tuple(dict.fromkeys(evidence))
    ask = ReportAsk(model, kind, {n: dict(v) for n, v in methods}, targets_of(targets), evidence=measures)
    if not ask.made():
        raise attrib.InputError("choose at least one method")
    for name in measures:
        if name not in measurable(kind):
            raise attrib.UnknownName(f"evidence for {kind}s", str(name)[:200], measurable(kind))
    if catalogue.missing(model):
        raise attrib.ModelUnavailable(
            f"{model} is not on this machine yet; fetch it in the tab {ask.kind.capitalize()}, or run: attrib models "
            f"pull {model}"
        )
    return ask


def measurable(kind: str) -> dict[str, str]:
    """What can be measured of every map of such a report: name → title. Metrics that need masks of objects cannot."""
    metrics = {n: m.card.title for n, m in attrib.METRICS.items() if kind in m.applies_to and not m.needs_mask}
    return {"lights": "All four lights: can these maps be trusted?", **metrics}


def targets_of(text: str | None) -> tuple[str, ...]:
    """Targets, one on each line. Spaces before a token belong to it."""
    found = tuple(dict.fromkeys(line.rstrip() for line in (text or "").splitlines() if line.strip()))
    if len(found) > MOST_TARGETS:
        raise attrib.InputError(f"{len(found)} targets: give at most {MOST_TARGETS}, one on each line")
    for target in found:
        if len(target) > LONGEST_TARGET:
            raise attrib.TargetError(f"the target {target[:40]!r}… has {len(target)} characters; no class is called so")
    return found


def usual_methods(kind: str) -> list[str]:
    """Two quick methods for a start: a report is many inputs."""
    wanted = {"image": ("lrp", "normgrad"), "text": ("lrp", "input_x_gradient")}[kind]
    return [name for name in wanted if name in offers.method_titles(kind)]
