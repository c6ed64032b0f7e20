"""What is known of a question so far, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import attrib
from app.questions import Ask
from attrib.attribution import labels_of
from attrib.render import Entry, described, readable

# the files of each method: ending -> what it is
OF_METHOD = {"png": "PNG", "safetensors": "values", "json": "JSON"}


@dataclass(frozen=True)
class Answer:
    """What is known so far. slider: (before, after) pictures of an ascent. text: what was explained, if a text.

    continued: the results have a row for each generated token; chosen: the one whose cards are shown.
    ask: the question that is answered. evidence: of each result, the four lights as far as they were checked.
    subtracted: the methods whose result is the difference of two maps.
    """

    results: dict[str, attrib.Attribution] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    slider: tuple[Any, Any] | None = None
    photo_name: str = ""
    text: str | None = None
    continued: bool = False
    chosen: int = 0
    ask: Ask | None = None
    evidence: dict[str, attrib.Evidence] = field(default_factory=dict)
    subtracted: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Step:
    """How far a run is; `answer` has grown when `fresh`."""

    fraction: float
    message: str
    answer: Answer
    fresh: bool = False
    done: bool = False


def titled(answer: Answer) -> list[Entry]:
    """Cards for the gallery: each result with what its method's card says."""
    entries = []
    for name, attribution in answer.results.items():
        card, evidence = attrib.METHODS[name].card, answer.evidence.get(name)
        entry = Entry(attribution, card.title, card.misleads, card.formula, card.reference, sample=answer.chosen)
        if evidence is not None:
            lights = evidence.lights[answer.chosen]
            entry = replace(entry, lights=lights, evidence=described(evidence.facts[answer.chosen]))
        entries.append(entry)
    return entries


def target_name(answer: Answer) -> str:
    """What is explained, in words; of a continuation all of it."""
    first = next(iter(answer.results.values()), None)
    if first is None:
        return ""
    if answer.continued:
        return readable("".join(target["text"] for target in first.target).strip(" "))
    return readable(labels_of(first.target)[0])


def summary(answer: Answer) -> str:
    seconds = sum(a.provenance.seconds for a in answer.results.values())
    failed = f", {len(answer.failures)} failed" if answer.failures else ""
    count = "1 method" if len(answer.results) == 1 else f"{len(answer.results)} methods"
    return f"{count} in {seconds:.1f} s{failed}"
