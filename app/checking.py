"""Checking a map: the lights that ask the model again, in steps that a page can show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import attrib
from app import questions
from app.answers import Answer, Step
from app.catalogue import Catalogue
from app.runs import Run
from app.watching import Progress, watched
from attrib.render import headline


def why_not(answer: Answer, name: str) -> str:
    """Why this method's map cannot be checked; empty where it can."""
    if answer.ask is None:
        return "The question of this answer is not known any more."
    if answer.continued:
        return "To check the map of a generated token, explain it as the target of the text before it."
    if name in answer.subtracted:
        return "A difference of two maps is no method's map; explain each class by itself to check its map."
    return ""


def cost(answer: Answer, name: str) -> str:
    """What checking a method's map costs, told beforehand; empty where there is nothing (left) to check."""
    evidence = answer.evidence.get(name)
    if evidence is None or why_not(answer, name) or not evidence.cost:
        return ""
    seconds = answer.results[name].provenance.seconds
    return f"costs {evidence.cost} of {seconds:.{1 if seconds >= 1 else 2}f} s each"


def check(answer: Answer, name: str, catalogue: Catalogue, run: Run) -> Iterator[Step]:
    """Check one method's map in a thread; yields at least twice a second, at last the answer with all its lights.

    Raises attrib's errors where the map cannot be checked, and attrib.Cancelled when the run is stopped.
    """
    result, reason = answer.results.get(name), why_not(answer, name)
    if result is None or answer.ask is None:
        raise attrib.InputError(f"there is no map of {name[:60]!r} to check; press Explain first")
    if reason:
        raise attrib.InputError(reason)
    title = attrib.METHODS[name].card.title
    work = partial(_checked, answer.ask, name, result, catalogue)
    try:
        with questions.WithoutPaths(answer.ask.photo):
            evidence = yield from watched(
                run, work, lambda part, told: Step(part, run.says(f"{title}: {told or 'checking'}"), answer)
            )
    finally:
        run.stop()  # also when nobody listens any more
    _, said = headline(evidence.lights[0]) or ("", "")
    grown = replace(answer, evidence={**answer.evidence, name: evidence})
    yield Step(1.0, f"{title}: checked. {said}", grown, fresh=True, done=True)


def _checked(
    ask: questions.Ask, name: str, result: attrib.Attribution, catalogue: Catalogue, on_progress: Progress
) -> Any:
    model = questions.of_kind(catalogue, ask.model, ask.kind)
    method = questions.method_of(name, dict(ask.methods)[name], ask.kind)
    return attrib.check(model, ask.given, result, method, on_progress=on_progress)
