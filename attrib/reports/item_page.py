"""The page of one item: every model and method side by side on one scale, or the reason why there is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup
from PIL import Image

from attrib.attribution import Attribution
from attrib.methods import METHODS
from attrib.methods.base import Method
from attrib.render import Display, Entry, Pictures, cards, described, embedded
from attrib.reports.evidence import Maps, lights_of, told
from attrib.reports.pages import PER_PAGE, index_path, rendered
from attrib.reports.store import Input, Row

MAX_TEXT = 5000
PICTURES = Pictures(size=256, format="JPEG")


def render_item(
    it: Input,
    rows: Sequence[Row],
    attributions: Sequence[Attribution | None],
    compared: Sequence[Maps],
    display: Display | None = None,
) -> bytes:
    """A page in HTML that needs no other file: a pure function of what it is given.

    rows: the input's, in the order of the report. attributions: for each row its result, a batch of one; None where
    the row failed. compared: for each row the maps that its evidence compared it with.
    """
    display = display or Display()
    pairs = list(zip(rows, attributions, compared, strict=True))
    targets = list(dict.fromkeys(row.target for row in rows))
    return rendered(
        "item.html",
        it=it,
        text=None if it.text is None else it.text[:MAX_TEXT],
        text_cut=0 if it.text is None else max(0, len(it.text) - MAX_TEXT),
        photo=_photo(attributions),
        models=_predictions(rows),
        failures=_failures(rows),
        nothing=all(a is None for a in attributions),
        sections=[(target, _gallery([p for p in pairs if p[0].target == target], display)) for target in targets],
        back=index_path(it.position // PER_PAGE),
        evidence=[],  # a place for what is measured of the item as a whole
    )


def _gallery(pairs: Sequence[tuple[Row, Attribution | None, Maps]], display: Display) -> Markup:
    several = len({row.model for row, _, _ in pairs}) > 1
    entries = [_entry(row, a, maps, several) for row, a, maps in pairs if a is not None]
    # already escaped: attrib.render's templates made it
    return Markup(cards(entries, display, PICTURES)) if entries else Markup("")


def _entry(row: Row, a: Attribution, maps: Maps, several_models: bool) -> Entry:
    method = METHODS.get(str(a.provenance.settings.get("method", row.method)))
    name = _title(row.method, method)
    entry = Entry(
        a,
        title=f"{name} · {row.model}" if several_models else name,
        lights=lights_of(row.evidence, maps),
        evidence=(*told(row.evidence), *described(row.evidence.get("facts", {}))),
    )
    if method is None:
        return entry
    card = method.card
    return replace(entry, misleads=card.misleads, formula=card.formula, reference=card.reference)


def _title(name: str, method: type[Method] | None) -> str:
    """The method's own title; beside it the name that the report gave it, where that is another."""
    if method is None:
        return name
    return method.card.title if name == method.name else f"{method.card.title}: {name}"


def _photo(attributions: Sequence[Attribution | None]) -> str:
    shown = next((a.pictures[0] for a in attributions if a is not None and a.pictures is not None), None)
    if shown is None:
        return ""
    picture = Image.fromarray(shown)
    picture.thumbnail((PICTURES.size, PICTURES.size))
    return embedded(picture, PICTURES.format)


def _predictions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What each model saw in the input, best first."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.predictions and row.model not in found:
            classes = [(label, p, f"{100 * max(0.0, min(1.0, p)):.1f}") for label, _, p in row.predictions]
            found[row.model] = {"name": row.model, "classes": classes}
    return list(found.values())


def _failures(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """(reason, what failed for it)."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.error is not None:
            found.setdefault(row.error, []).append(f"{row.method} on {row.model} for {row.target}")
    return list(found.items())
