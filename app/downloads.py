"""The files of an answer: pictures, raw values, provenance, a page, and all of them in one zip."""

from __future__ import annotations

import re
import tempfile
import zipfile
from pathlib import Path

from app import answers
from attrib.render import (
    Display,
    Entry,
    annotated,
    captioned,
    drawn_maps,
    over,
    pieces,
    scales,
    standalone,
    token_scales,
)


def write(answer: answers.Answer, display: Display, folder: str | Path) -> list[str]:
    """Write everything into a new folder inside `folder`; returns the zip, the page, each method's."""
    place = Path(tempfile.mkdtemp(dir=folder))
    stem = "text" if answer.text is not None else _safe(answer.photo_name) or "photo"
    entries = answers.titled(answer)
    page = place / f"{stem}.html"
    target = answers.target_name(answer)
    given = {"photo": answer.photo_name} if answer.text is None else {"text": answer.text}
    facts, title = {**given, "target": target}, f"Why {target}?"
    page.write_text(standalone(entries, display, title=title, facts=facts), encoding="utf-8")
    drawn = _pictures if answer.text is None else _texts
    files = [page, *drawn(entries, display, place, stem), *_raw(entries, place, stem)]
    whole = place / f"{stem}.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in files:
            archive.write(file, file.name)
    return [str(path) for path in (whole, *files)]


def _pictures(entries: list[Entry], display: Display, place: Path, stem: str) -> list[Path]:
    maps = drawn_maps([e.attribution.heatmap()[e.sample] for e in entries], display)
    drawn = scales(maps, [e.attribution.signed for e in entries], display)
    paths = []
    for entry, values, scale in zip(entries, maps, drawn, strict=True):
        pictures = entry.attribution.pictures
        picture = over(values, scale, None if pictures is None else pictures[entry.sample], display, size=672)
        paths.append(place / f"{stem}.{_safe(entry.attribution.method)}.png")
        annotated(picture, scale, entry.name).save(paths[-1])
    return paths


def _texts(entries: list[Entry], display: Display, place: Path, stem: str) -> list[Path]:
    drawn = token_scales([(e.attribution, e.sample) for e in entries], display)
    paths = []
    for entry, scale in zip(entries, drawn, strict=True):
        paths.append(place / f"{stem}.{_safe(entry.attribution.method)}.png")
        captioned(pieces(entry.attribution, entry.sample, display), scale, entry.name).save(paths[-1])
    return paths


def _raw(entries: list[Entry], place: Path, stem: str) -> list[Path]:
    paths = []
    for entry in entries:
        with tempfile.TemporaryDirectory(dir=place) as saved:
            entry.attribution.save(saved)
            for name, ending in (("values.safetensors", "safetensors"), ("attribution.json", "json")):
                path = place / f"{stem}.{_safe(entry.attribution.method)}.{ending}"
                Path(saved, name).rename(path)
                paths.append(path)
    return paths


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60].strip("_")
