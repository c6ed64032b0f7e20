"""The work itself: a batch of inputs through the methods of a model, to rows and files' contents. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attrib.attribution import Attribution
from attrib.errors import Cancelled, NotApplicable, ReportError
from attrib.explain import explain
from attrib.models.text import TextModel
from attrib.models.wrapped import Prediction
from attrib.reports.asked import asked, settled
from attrib.reports.batches import Model, Ready, told
from attrib.reports.evidence import Measurement, measured
from attrib.reports.journal import Finished, Key
from attrib.reports.reading import found_in, one_map, own_values
from attrib.reports.spec import Spec
from attrib.reports.store import COMPARED
from attrib.targets import Logit

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Outcome:
    """What one method found for some items of a batch.

    tensors: by item, then "values" and "parts.…". pictures: by item, what the model saw.
    """

    model: str
    method: str
    target: str
    rows: list[Finished]
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


class Explained(NamedTuple):
    """A method's result for some items, the seconds it took, and for each item what was measured of its map."""

    result: Attribution
    seconds: float
    evidence: list[Measurement]


def outcomes(spec: Spec, model: Model, prepared: Ready, on_progress: Progress | None = None) -> Iterator[Outcome]:
    """What every method that is to be done found, one after the other; a failing input becomes a row with its error."""
    work = _Work(spec, model, prepared, on_progress)
    for method, target, places in prepared.batch.todo:
        yield work.outcome(method, target, places)


@dataclass
class _Work:
    """One batch: its predictions are made once and serve every method."""

    spec: Spec
    model: Model
    prepared: Ready
    on_progress: Progress | None
    problems: dict[int, str] = field(init=False)
    predicted: dict[int, list[Prediction]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.problems = dict(self.prepared.problems)
        sound = [i for i, shown in enumerate(self.prepared.shown) if shown is not None]
        for places, predictions in self._each_or_together(sound, self._predict, self.problems):
            self.predicted |= zip(places, predictions, strict=True)

    def outcome(self, method: str, target: str, places: tuple[int, ...]) -> Outcome:
        """The rows of one method and target, for the items at `places`."""
        items = self.prepared.batch.items
        problems = dict(self.problems)
        questions = self._questions(target, [i for i in places if i not in problems], problems)
        outcome = Outcome(self.prepared.batch.model, method, target, [])
        for kind in dict.fromkeys(type(question) for question in questions.values()):
            alike = [i for i, question in questions.items() if type(question) is kind]
            answer = _answering(self, method, questions)
            for together, explained in self._each_or_together(alike, answer, problems):
                self._add(outcome, together, explained)
        for i in places:
            if i in problems:
                key = Key(items[i].id, outcome.model, method, target)
                outcome.rows.append(Finished(key, {"error": problems[i]}, 0.0, 0))
        return outcome

    def explained(self, method: str, places: list[int], targets: list[Any]) -> Explained:
        """The result for the items at `places`, and what the spec wants measured of it."""
        started = time.perf_counter()
        chosen, inputs = self.spec.methods[method], self._inputs(places)
        result = explain(self.model, inputs, chosen, targets, on_progress=self.on_progress)
        seconds, found = time.perf_counter() - started, [Measurement()] * len(places)
        if self.spec.evidence:
            found = measured(self.spec.evidence, self.model, inputs, result, chosen, targets, self.on_progress)
        return Explained(result if self.spec.values == "raw" else one_map(result), seconds, found)

    def _questions(self, target: str, places: list[int], problems: dict[int, str]) -> dict[int, Any]:
        """What is asked of each item, with classes as indices; those that name no class become problems."""
        found = {}
        for i in places:
            question = asked(target, self.prepared.batch.items[i].input.target) or Logit(self.predicted[i][0].index)
            try:
                found[i] = settled(question, self.model.index_of)
            except Exception as error:  # a tokenizer may be anybody's code
                problems[i] = told(error)
        return found

    def _inputs(self, places: list[int]) -> Any:
        shown = [self.prepared.shown[i] for i in places]
        if isinstance(self.model, TextModel):
            return shown
        if self.model.preprocessing is None:
            raise ReportError(f"{self.model.name} has no preprocessing, so it takes no pictures")
        return self.model.preprocessing.normalised(np.stack(shown))  # type: ignore[arg-type]

    def _predict(self, places: list[int]) -> list[list[Prediction]]:
        return self.model.predict(self._inputs(places))

    def _each_or_together(
        self, places: list[int], answer: Callable[[list[int]], Any], problems: dict[int, str]
    ) -> Iterator[tuple[list[int], Any]]:
        """(places, answer) for all of them; where that fails, for each alone, and the culprits become problems."""
        if not places:
            return
        try:
            yield places, answer(places)
            return
        except (Cancelled, ReportError):
            raise
        except Exception as error:  # the model is anybody's code
            if len(places) == 1 or isinstance(error, NotApplicable):
                problems |= dict.fromkeys(places, told(error))
                return
        for place in places:
            yield from self._each_or_together([place], answer, problems)

    def _add(self, outcome: Outcome, places: list[int], explained: Explained) -> None:
        result, seconds = explained.result, explained.seconds
        for n, i in enumerate(places):
            item, shown = self.prepared.batch.items[i], self.prepared.shown[i]
            key = Key(item.id, outcome.model, outcome.method, outcome.target)
            found = found_in(result, n, self.predicted[i], (*self.prepared.notes[i], *result[n].notes))
            evidence = explained.evidence[n]
            found |= {"evidence": evidence.document} if evidence.document else {}
            outcome.rows.append(Finished(key, found, seconds / len(places), result.provenance.peak_memory))
            compared = {f"{COMPARED}{name}": torch.from_numpy(values) for name, values in evidence.maps.items()}
            outcome.tensors[item.id] = own_values(result, n) | compared
            if isinstance(shown, np.ndarray):
                outcome.pictures[item.id] = shown


def _answering(work: _Work, method: str, questions: dict[int, Any]) -> Callable[[list[int]], Any]:
    return lambda places: work.explained(method, places, [questions[i] for i in places])
