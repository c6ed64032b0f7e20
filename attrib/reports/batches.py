"""Which inputs go through a model together, and what is left to be done of them; the same ones in every run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from attrib.errors import InputError, ReportError
from attrib.models.images import pictures_of
from attrib.models.text import TextModel
from attrib.models.vision import VisionModel
from attrib.reports.items import Item
from attrib.reports.journal import Journal, Key
from attrib.reports.spec import Spec

Model = VisionModel | TextModel
_TEXTS_SORTED = 8  # batches whose texts are sorted by length before they are cut


@dataclass(frozen=True)
class Batch:
    """Inputs that go through a model together, always the same ones whatever was finished before.

    todo: for each method and target what is asked of which of the items, by their places in `items`.
    """

    model: str
    items: tuple[Item, ...]
    todo: tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Ready:
    """A batch with everything decoded. shown: what goes into the model, item by item; None where it cannot be read.

    Images are (height, width, 3) uint8, texts are str. problems: why, by place.
    """

    batch: Batch
    shown: tuple[np.ndarray | str | None, ...]
    notes: tuple[tuple[str, ...], ...]
    problems: dict[int, str]


@dataclass
class Tally:
    """How many rows are settled. kept: were finished in an earlier run, or are of an input that came before."""

    kept: int = 0
    computed: int = 0

    @property
    def done(self) -> int:
        return self.kept + self.computed


def batches(spec: Spec, stream: Iterator[Item], journal: Journal, tally: Tally) -> Iterator[Batch]:
    """What is left to be done, batch by batch, a model at a time; every input is entered into the journal."""
    run = journal.next_run()
    each = len(spec.models) * len(spec.methods) * len(spec.targets)
    for group in _groups(spec, stream):
        journal.add_inputs(run, [(item.input.position, item.id, item.input.record()) for item in group])
        fresh = tuple(item for item in group if journal.first_position(run, item.id) == item.input.position)
        tally.kept += each * (len(group) - len(fresh))
        for items in _cut(spec, fresh):
            for model in spec.models:
                todo = _todo(spec, model, items, journal)
                tally.kept += each // len(spec.models) * len(items) - sum(len(places) for _, _, places in todo)
                if todo:
                    yield Batch(model, items, todo)
    journal.forget_other_runs(run)


def _groups(spec: Spec, stream: Iterator[Item]) -> Iterator[tuple[Item, ...]]:
    """1, 2, 4 … inputs, so that the first results come at once; then whole batches, of texts several together."""
    size = 1
    while group := tuple(islice(stream, size)):
        yield group
        largest = spec.batch * (_TEXTS_SORTED if group[0].length else 1)
        size = min(2 * size, largest)


def _cut(spec: Spec, group: tuple[Item, ...]) -> Iterator[tuple[Item, ...]]:
    ordered = sorted(group, key=lambda item: item.length)
    for start in range(0, len(ordered), spec.batch):
        yield tuple(ordered[start : start + spec.batch])


def _todo(
    spec: Spec, model: str, items: tuple[Item, ...], journal: Journal
) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    found = []
    for method in spec.methods:
        for target in spec.targets:
            places = [i for i, item in enumerate(items) if not journal.has(Key(item.id, model, method, target))]
            found.append((method, target, tuple(places)))
    return tuple(part for part in found if part[2])


def ready(batch: Batch, model: Model) -> Ready:
    """Decode a batch: may run ahead of the computation, in another thread."""
    shown: list[np.ndarray | str | None] = []
    notes: list[tuple[str, ...]] = []
    problems: dict[int, str] = {}
    for place, item in enumerate(batch.items):
        try:
            content, said = _shown(item, model)
        except ReportError:
            raise
        except Exception as error:  # a hostile file may make a decoder raise anything
            content, said = None, ()
            problems[place] = item.error or told(error)
        shown.append(content)
        notes.append(said)
    return Ready(batch, tuple(shown), tuple(notes), problems)


def _shown(item: Item, model: Model) -> tuple[np.ndarray | str | None, tuple[str, ...]]:
    if item.error is not None:
        raise InputError(item.error)
    if item.data is None:
        return item.input.text, ()
    picture = pictures_of(item.data)[0]
    preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is None:
        raise ReportError(
            f"{model.name} has no preprocessing, so it takes no pictures: attrib.wrap(…, preprocessing=…)"
        )
    return preprocessing.picture(picture.image), picture.notes


def told(error: BaseException) -> str:
    """An error as a row tells it: one line, of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:500]
