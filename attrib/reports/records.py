"""What a report knows of an input and of a result: the records behind its pages and tables."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from attrib.reports.journal import Finished, Key

MEASURED = ("seconds", "memory")  # the fields of a row that differ from run to run
_PLACE = ("position", "item", "name", "kind", "source", "text")
_TUPLES = ("top", "notes", "uncovered", "tokens", "words")


@dataclass(frozen=True)
class Input:
    """One thing of the input, in its place. Two inputs of the same content and target are the same `item`.

    position: from 0, in the order of the source. item: hash of content and target, 24 hex digits; fit for file names.
    name: what to call it (relative path, own id, "line 3"): text from outside, of any characters but lone surrogates.
    kind: "image" or "text". text: the text itself; None for images. source: where it was read, for people.
    target: the input's own target, a label or an index, or None.
    """

    position: int
    item: str
    name: str
    kind: str
    source: str
    text: str | None = None
    target: str | int | None = None

    def record(self) -> dict[str, Any]:
        """What the journal holds of it beside its position and item."""
        return {"name": self.name, "kind": self.kind, "source": self.source, "text": self.text, "target": self.target}


@dataclass(frozen=True)
class Row:
    """What one method found of one target of one model on one input; or why it did not.

    position, item, name, kind, source, text: of the input. model, method, target: names in the spec.
    error: why there is no result: then all below is empty. None: there is one.
    predictions: up to five (label, index, probability), best first; prediction, probability: the first of them.
    target_label, target_index: the class that was explained ("a rather than b" for a difference).
    score, delta: in the target's units; delta None where the method makes no claim of completeness.
    ledger: where the score went, name → amount, adding up to the score; empty outside LRP.
    top: the strongest parts, strongest first. Images: {"box": [left, top, right, bottom] in pixels of the picture,
        "relevance": signed sum, "share": of all |relevance|}. Texts: {"word": …, "relevance": …, "share": …}.
    settled: the settings that attrib chose by itself where the spec has "auto": name → what ran.
    notes: what a reader must know before trusting the map.
    map_kind, reduction, signed: as `kind`, `reduction`, `signed` of Attribution. uncovered: operations without a rule.
    values, picture: paths inside the folder; picture None for texts.
    tokens, words: of texts, the tokens' texts and the word that each is a piece of.
    evidence: what was measured of the map, where the spec asks for it: lights, facts, metrics; see `evidence.measured`.
    input_hash: of the model's input, as in Provenance. seconds: its share of its batch's time.
    memory: bytes, the process' peak so far.
    """

    position: int
    item: str
    name: str
    kind: str
    source: str
    model: str
    method: str
    target: str
    text: str | None = None
    error: str | None = None
    predictions: tuple[tuple[str, int, float], ...] = ()
    target_label: str | None = None
    target_index: int | None = None
    score: float | None = None
    delta: float | None = None
    ledger: dict[str, float] = field(default_factory=dict)
    top: tuple[dict[str, Any], ...] = ()
    settled: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    map_kind: str = ""
    reduction: str = "sum"
    signed: bool = True
    uncovered: tuple[str, ...] = ()
    values: str | None = None
    picture: str | None = None
    tokens: tuple[str, ...] = ()
    words: tuple[int | None, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    input_hash: str = ""
    seconds: float = 0.0
    memory: int = 0

    @property
    def failed(self) -> bool:
        return self.error is not None

    @property
    def prediction(self) -> str | None:
        """The most probable class."""
        return self.predictions[0][0] if self.predictions else None

    @property
    def probability(self) -> float | None:
        """Of the most probable class."""
        return self.predictions[0][2] if self.predictions else None

    @property
    def key(self) -> Key:
        """(item, model, method, target): what is computed once."""
        return Key(self.item, self.model, self.method, self.target)


def row_of(it: Input, finished: Finished) -> Row:
    """The row of an input and what the journal holds about it."""
    found: dict[str, Any] = {name: tuple(v) if name in _TUPLES else v for name, v in finished.found.items()}
    found["predictions"] = tuple((str(n), int(i), float(p)) for n, i, p in found.get("predictions", ()))
    place = {name: getattr(it, name) for name in _PLACE}
    _, model, method, target = finished.key
    measured = {"seconds": finished.seconds, "memory": finished.memory}
    return Row(**(place | found | measured | {"model": model, "method": method, "target": target}))


def digest(rows: list[Row]) -> str:
    """Changes when anything but seconds and memory does: a page made of these rows need not be written again."""
    plain = [{k: v for k, v in vars(row).items() if k not in MEASURED} for row in rows]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:24]
