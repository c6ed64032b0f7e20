"""Running methods one after the other, in steps that a page can show."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import attrib
from app import contrasts, questions
from app.answers import Answer, Step, summary
from app.catalogue import Catalogue
from app.questions import Ask
from app.runs import Run
from app.watching import watched

log = logging.getLogger("attrib.app")


def explain(ask: Ask, catalogue: Catalogue, run: Run) -> Iterator[Step]:
    """Run the methods one after the other in a thread; yields at least twice a second.

    A method that fails leaves its sentence in `failures`, and the others go on. Raises attrib's errors when the
    question itself is wrong (photo, model, target, settings), and attrib.Cancelled when the run is stopped.
    """
    model = questions.of_kind(catalogue, ask.model, ask.kind)
    methods = [questions.method_of(name, values, ask.kind) for name, values in ask.methods]
    if not methods:
        raise attrib.InputError("choose at least one method")
    # nobody waits, or is stopped, for the slow ones
    methods.sort(key=lambda method: (not method.single_pass, method.attention_copies))
    questions.check_target(model, ask)
    with questions.WithoutPaths(ask.photo):
        model.predict(ask.given, k=1)  # a bad photo is one error, not one for each method
    try:
        yield from _one_by_one(model, ask, methods, run)
    finally:
        run.stop()  # also when nobody listens any more


def _one_by_one(model: Any, ask: Ask, methods: Sequence[Any], run: Run) -> Iterator[Step]:
    n = len(methods)
    answer = Answer(photo_name=Path(ask.photo).stem, text=ask.text, continued=bool(ask.new_tokens), ask=ask)
    for done, method in enumerate(methods):
        title = method.card.title
        told = f"{title} ({done + 1} of {n})"
        yield Step(done / n, told, answer)
        answer = yield from _grown(answer, model, ask, method, run, (done, n, told))
        yield Step((done + 1) / n, f"{title} is ready", answer, fresh=True)
    yield Step(1.0, summary(answer), answer, done=True)


def _grown(
    answer: Answer, model: Any, ask: Ask, method: Any, run: Run, place: tuple[int, int, str]
) -> Generator[Step, None, Answer]:
    """The answer with one more method in it, or with the sentence why it failed."""
    done, n, told = place
    work = partial(contrasts.one, model, ask, method)
    try:
        found = yield from watched(run, work, lambda part, _: Step((done + part) / n, run.says(told), answer))
    except attrib.Cancelled:
        raise
    except attrib.AttribError as error:
        return replace(answer, failures={**answer.failures, method.name: str(error)})
    except Exception:
        log.exception("%s failed", method.name)
        failure = "this method failed for a reason that is not yours; the server's log has it"
        return replace(answer, failures={**answer.failures, method.name: failure})
    return replace(
        answer,
        results={**answer.results, method.name: found.result},
        evidence={**answer.evidence, method.name: found.result.evidence},
        slider=found.slider or answer.slider,
        subtracted=answer.subtracted | ({method.name} if found.subtracted else set()),
    )
