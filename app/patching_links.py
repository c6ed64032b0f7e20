"""A link that restores the settings of the patching tab, and the way back. Both prompts are part of the link."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import attrib
from app import controls, links
from app.patching_heatmaps import SCALES
from app.patching_questions import METHODS, MODEL, SITE_KINDS, USUAL_KINDS, PatchAsk, controls_of
from app.text_links import LONGEST, read, written
from attrib.render import PALETTES

USUAL_SCALE, USUAL_PALETTE = "share", "blue–red"


@dataclass(frozen=True)
class PatchView:
    """Everything of the tab that a link carries."""

    ask: PatchAsk
    how: str = USUAL_SCALE
    palette: str = USUAL_PALETTE


def to_query(view: PatchView) -> str:
    """The part after "?", with defaults left out; prompts that are too long for a link are left out too."""
    ask = view.ask
    short = len(ask.clean) + len(ask.corrupted) <= LONGEST
    pairs: dict[str, Any] = {
        "tab": "patching",
        "clean": ask.clean if short and ask.clean else None,
        "corrupted": ask.corrupted if short and ask.corrupted else None,
        "model": ask.model,
        "answer": written(ask.answer),
        "wrong": written(ask.wrong),
        "method": None if ask.method == "relp" else ask.method,
        "sites": None if ask.kinds == USUAL_KINDS else ",".join(ask.kinds),
        "patterns": ",".join(ask.patterns) or None,
        "filler": ask.filler or None,
        "scale": None if view.how == USUAL_SCALE else view.how,
        "palette": None if view.palette == USUAL_PALETTE else view.palette,
    }
    usual = {c.name: c.shown for c in controls_of(ask.method)}
    pairs |= {f"set.{name}": links.text_of(v) for name, v in ask.settings.items() if v != usual[name]}
    return urlencode({k: v for k, v in pairs.items() if v is not None}, errors="replace")


def from_query(query: Mapping[str, str], models: Container[str]) -> tuple[PatchView, list[str]]:
    """The view of a link, and one sentence for each part of it that this server does not know."""
    problems: list[str] = []

    def known(name: str, table: Container[str], default: str) -> str:
        value = query.get(name)
        if value is None or value in table:
            return default if value is None else value
        problems.append(f"The link asks for {name} {value[:60]!r}, which is not on offer here.")
        return default

    method = known("method", METHODS, "relp")
    wanted = query["sites"].split(",")[:50] if "sites" in query else list(USUAL_KINDS)
    unknown = [kind[:60] for kind in wanted if kind and kind not in SITE_KINDS]
    if unknown:
        problems.append(f"The link asks for kinds of sites that are not on offer here: {', '.join(unknown)}.")
    ask = PatchAsk(
        clean=query.get("clean", "")[:LONGEST],
        corrupted=query.get("corrupted", "")[:LONGEST],
        model=known("model", models, MODEL),
        answer=read(query.get("answer")),
        wrong=read(query.get("wrong")),
        method=method,
        kinds=tuple(kind for kind in wanted if kind in SITE_KINDS),
        patterns=patterns(query.get("patterns", "")),
        settings=_settings(query, method, problems),
        filler=query.get("filler", "")[:100],
    )
    return PatchView(ask, known("scale", SCALES, USUAL_SCALE), known("palette", PALETTES, USUAL_PALETTE)), problems


def patterns(text: str) -> tuple[str, ...]:
    """Names and patterns of sites as they are written, separated by commas or spaces."""
    return tuple(dict.fromkeys(text[:2000].replace(",", " ").split()))


def _settings(query: Mapping[str, str], method: str, problems: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in query.items():
        if not key.startswith("set."):
            continue
        name = key.removeprefix("set.")
        try:
            built = controls.build(attrib.METHODS[method], "text", {name: value})
        except attrib.AttribError as error:
            problems.append(f"The link's setting {key[:60]} was left out: {error}")
            continue
        control = next((c for c in controls_of(method) if c.name == name), None)
        if control is not None:
            found[name] = getattr(built, name) if control.kind in ("whole", "real", "switch") else value
    return found
