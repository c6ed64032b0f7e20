"""The files of a patching answer: pictures, values, numbers, a page, and all of them in one zip."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

import attrib
from app.patching import PatchAnswer, of_kind
from app.patching_circuit import numbers, shown
from app.patching_heatmaps import ADDED, drawn_panels
from app.patching_markup import heatmaps, metric_name, strongest, verification
from app.places import new_place
from attrib.models.assets import asset
from attrib.render import Display, Entry, standalone
from attrib.render.sites import sites_figure

_SAVED = {"safetensors": "values.safetensors", "json": "attribution.json"}


def write(answer: PatchAnswer, how: str, palette: str, folder: str | Path) -> list[str]:
    """Write everything into a new folder inside `folder`; returns the zip, then each file."""
    place = new_place(folder)
    files = [path for ending in _WRITERS for path in _WRITERS[ending](answer, how, palette, place)]
    whole = place / "patching.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in files:
            archive.write(file, file.name)
    return [str(path) for path in (whole, *files)]


def write_one(answer: PatchAnswer, how: str, palette: str, folder: str | Path, wanted: str) -> str:
    """Write one file, "zip", "html", "png", "safetensors" or "json", into a new folder inside `folder`."""
    if wanted == "zip":
        return write(answer, how, palette, folder)[0]
    if wanted not in _WRITERS:
        raise attrib.InputError(f"there is no file {wanted[:60]!r} of this answer")
    return str(_WRITERS[wanted](answer, how, palette, new_place(folder))[0])


def document(answer: PatchAnswer) -> dict[str, Any]:
    """What a program may read of an answer, short of the values themselves, which are in the files."""
    a, (clean, corrupted) = answer.result, answer.metric
    return {
        "method": a.method,
        "target": a.target[0],
        "metric": {"clean": clean, "corrupted": corrupted},
        "tokens": {"clean": _texts(a.token_texts), "corrupted": _texts(a.corrupted_texts)},
        "sites": list(a.sites or ()),
        "shape": list(a.values.shape),
        "top": [effect._asdict() for effect in a.top(50)],
        "verification": _verification(answer),
        "circuit": numbers(answer),
        "notes": list(a.notes),
        "coverage": None if a.coverage is None else str(a.coverage),
        "settings": json.loads(json.dumps(a.provenance.settings)),
        "seconds": a.provenance.seconds,
        "weights_hash": a.provenance.weights_hash,
    }


def _verification(answer: PatchAnswer) -> dict[str, Any] | None:
    found = answer.verified
    if found is None:
        return None
    r = None if math.isnan(found.correlation) else found.correlation
    lights = () if answer.checked is None else answer.checked.lights[0]
    return {
        "of": answer.of or "all",
        "correlation": r,
        "entries": [entry._asdict() for entry in found.entries],
        "lights": [{"name": light.name, "verdict": light.verdict, "words": light.words} for light in lights],
    }


def _texts(rows: Any) -> list[str]:
    return list(rows[0]) if rows else []


def _page(answer: PatchAnswer, how: str, palette: str, place: Path) -> list[Path]:
    """It says everything without a script: cells have titles, and each heatmap its table."""
    card = attrib.METHODS[answer.ask.method].card
    a = answer.result
    facts = {
        "clean": "".join(_texts(a.token_texts)),
        "corrupted": "".join(_texts(a.corrupted_texts)),
        "metric": f"{metric_name(answer)}: {answer.metric[0]:.4g} clean, {answer.metric[1]:.4g} corrupted",
    }
    style = f"<style>{asset('patching.css').read_text(encoding='utf-8')}</style>"
    before = Markup(style + heatmaps(answer, how, palette) + strongest(answer) + verification(answer) + shown(answer))
    entry = Entry(a, card.title, card.misleads, card.formula, card.reference, heatmaps=False)
    title = f"{card.title}: {metric_name(answer)}"
    path = place / "patching.html"
    path.write_text(standalone([entry], Display(how="own", palette=palette), title=title, facts=facts, before=before),
                    encoding="utf-8")  # fmt: skip
    return [path]


def _pictures(answer: PatchAnswer, how: str, palette: str, place: Path) -> list[Path]:
    """One of the heatmaps over tokens, one of those over heads."""
    display = Display(how="own" if how == "own" else "raw", palette=palette, percentile=100.0)
    grids = [kind for kind, panel in drawn_panels(answer.result, answer.kinds) if panel.title.endswith(ADDED)]
    found = []
    for name, columns, kinds in (
        ("patching.png", "token", [kind for kind in answer.kinds if kind not in grids]),
        ("patching.heads.png", "head", grids),
    ):
        if kinds:
            places = [i for kind in kinds for i in _places(answer, kind)]
            names = answer.result.sites or ()
            part = replace(answer.result, values=answer.result.values[:, places], sites=tuple(names[i] for i in places))
            sites_figure(part, display, index=0, columns=columns).savefig(place / name, dpi=110)
            found.append(place / name)
    return found


def _places(answer: PatchAnswer, kind: str) -> list[int]:
    wanted = set(of_kind(answer.result, kind).sites or ())
    return [i for i, name in enumerate(answer.result.sites or ()) if name in wanted]


def _values(answer: PatchAnswer, how: str, palette: str, place: Path) -> list[Path]:
    return [_saved(answer.result, "safetensors", place, "patching.safetensors")] + (
        [_saved(answer.verified.true, "safetensors", place, "patching.true.safetensors")] if answer.verified else []
    )


def _json(answer: PatchAnswer, how: str, palette: str, place: Path) -> list[Path]:
    """As `Attribution.save` writes it, and what the page tells beside it."""
    told = place / "patching.numbers.json"
    told.write_text(json.dumps(document(answer), indent=1), encoding="utf-8")
    found = [] if answer.circuit is None else [answer.circuit.save(place / f"circuit.{e}") for e in ("json", "graphml")]
    return [_saved(answer.result, "json", place, "patching.json"), told, *found]


def _saved(result: attrib.Attribution, ending: str, place: Path, name: str) -> Path:
    with tempfile.TemporaryDirectory(dir=place) as saved:
        result.save(saved)
        return Path(saved, _SAVED[ending]).rename(place / name)


_WRITERS: dict[str, Callable[[PatchAnswer, str, str, Path], list[Path]]] = {
    "html": _page, "png": _pictures, "safetensors": _values, "json": _json,
}  # fmt: skip
