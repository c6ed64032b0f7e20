"""The files of an answer: pictures, raw values, provenance, a page, and all of them in one zip."""

from __future__ import annotations

import re
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup
from PIL import Image

import attrib
from app.answers import OF_METHOD, Answer, target_name, titled
from app.markup import triangles
from app.places import new_place
from attrib.attribution import labels_of
from attrib.render import (
    Display,
    Entry,
    annotated,
    captioned,
    drawn_maps,
    is_signed,
    over,
    pieces,
    readable,
    scales,
    standalone,
    token_scales,
    triangle_picture,
)

_SAVED = {"safetensors": "values.safetensors", "json": "attribution.json"}


def write(answer: Answer, display: Display, folder: str | Path) -> list[str]:
    """Write everything into a new folder inside `folder`; returns the zip, the page, each method's."""
    place = new_place(folder)
    files = [_page(answer, display, place)]
    for ending in OF_METHOD:
        files += [_of_method(answer, display, place, name, ending) for name in answer.results]
    whole = place / f"{_stem(answer)}.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in files:
            archive.write(file, file.name)
    return [str(path) for path in (whole, *files)]


def write_one(answer: Answer, display: Display, folder: str | Path, wanted: str) -> str:
    """Write one file into a new folder inside `folder`. wanted: "zip", "html", or METHOD.ENDING of OF_METHOD."""
    name, _, ending = wanted.rpartition(".")
    if wanted == "zip":
        return write(answer, display, folder)[0]
    if wanted != "html" and (name not in answer.results or ending not in OF_METHOD):
        raise attrib.InputError(f"there is no file {wanted[:60]!r} of this answer")
    place = new_place(folder)
    return str(_page(answer, display, place) if wanted == "html" else _of_method(answer, display, place, name, ending))


def _page(answer: Answer, display: Display, place: Path) -> Path:
    target = target_name(answer)
    given = {"photo": answer.photo_name} if answer.text is None else {"text": answer.text}
    facts, title = {**given, "target": target}, f"Why {target}?"
    page = place / f"{_stem(answer)}.html"
    maps = Markup(triangles(answer, display))
    page.write_text(standalone(_all_rows(answer), display, title=title, facts=facts, before=maps), encoding="utf-8")
    return page


def _of_method(answer: Answer, display: Display, place: Path, name: str, ending: str) -> Path:
    path = place / f"{_stem(answer)}.{_safe(name)}.{ending}"
    if ending == "png":
        drawn = _triangle if answer.continued else _picture if answer.text is None else _text
        drawn(titled(answer), list(answer.results).index(name), display).save(path)
        return path
    with tempfile.TemporaryDirectory(dir=place) as saved:
        answer.results[name].save(saved)
        Path(saved, _SAVED[ending]).rename(path)
    return path


def _picture(entries: list[Entry], which: int, display: Display) -> Image.Image:
    maps = drawn_maps([e.attribution.heatmap()[e.sample] for e in entries], display)
    scale = scales(maps, [is_signed(e.attribution) for e in entries], display)[which]
    entry, pictures = entries[which], entries[which].attribution.pictures
    photo = None if pictures is None else pictures[entry.sample]
    return annotated(over(maps[which], scale, photo, display, size=672), scale, entry.name)


def _text(entries: list[Entry], which: int, display: Display) -> Image.Image:
    scale = token_scales([(e.attribution, e.sample) for e in entries], display)[which]
    entry = entries[which]
    return captioned(pieces(entry.attribution, entry.sample, display), scale, entry.name)


def _triangle(entries: list[Entry], which: int, display: Display) -> Image.Image:
    return triangle_picture(entries[which].attribution, display, entries[which].name)


def _all_rows(answer: Answer) -> list[Entry]:
    """A card for each generated token of a continuation; else one for each method."""
    if not answer.continued:
        return titled(answer)
    rows = range(len(next(iter(answer.results.values()))))
    return [_of_token(entry) for row in rows for entry in titled(replace(answer, chosen=row))]


def _of_token(entry: Entry) -> Entry:
    """A card that says which generated token it is about."""
    label = readable(labels_of(entry.attribution.target)[entry.sample]).strip()
    return replace(entry, title=f"{entry.title}: token {entry.sample + 1}, “{label}”")


def _stem(answer: Answer) -> str:
    return "text" if answer.text is not None else _safe(answer.photo_name) or "photo"


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60].strip("_")
