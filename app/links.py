"""A link that restores the settings of a page, and the way back. What a link holds is checked like any input."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import attrib
from app import controls, displays, offers, questions
from attrib.render import HOW, PALETTES, Display


@dataclass(frozen=True)
class View:
    """Everything of a page that a link carries. photo: an example's name (an upload stays on its machine).

    settings: method -> the values of its controls that differ from their defaults.
    """

    photo: str | None = None
    model: str | None = None
    methods: tuple[str, ...] = ()
    target: int | None = None
    versus: int | None = None
    versus_by: str = "logits"
    display: Display = displays.USUAL
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def to_query(view: View) -> str:
    """The part after "?", with defaults left out."""
    usual = displays.USUAL
    pairs: dict[str, Any] = {
        "photo": view.photo, "model": view.model, "methods": ",".join(view.methods) or None,
        "target": view.target, "versus": view.versus,
        "by": view.versus_by if view.versus is not None and view.versus_by != "logits" else None,
    }  # fmt: skip
    shown = {
        "opacity": view.display.opacity, "palette": view.display.palette, "scale": view.display.how,
        "clip": view.display.percentile, "view": "map" if view.display.raw else "over",
        "smooth": view.display.blur,
    }  # fmt: skip
    defaults = {"opacity": usual.opacity, "palette": usual.palette, "scale": usual.how, "clip": usual.percentile,
                "view": "over", "smooth": usual.blur}  # fmt: skip
    pairs |= {name: value for name, value in shown.items() if value != defaults[name]}
    for method, values in view.settings.items():
        pairs |= {f"{method}.{name}": text_of(value) for name, value in values.items()}
    return urlencode({name: value for name, value in pairs.items() if value is not None})


def from_query(query: Mapping[str, str], models: Container[str]) -> tuple[View, list[str]]:
    """The view of a link, and one sentence for each part of it that this server does not know."""
    problems: list[str] = []

    def known(name: str, table: Any, default: Any) -> Any:
        value = query.get(name)
        if value is None or value in table:
            return default if value is None else value
        problems.append(f"The link asks for {name} {value[:60]!r}, which is not on offer here.")
        return default

    titles = offers.method_titles()
    wanted = [m for m in query.get("methods", "").split(",") if m][:50]
    unknown = [m[:60] for m in wanted if m not in titles]
    if unknown:
        problems.append(f"The link asks for methods that are not on offer here: {', '.join(unknown)}.")
    return View(
        photo=known("photo", offers.example_photos(), None),
        model=known("model", models, None),
        methods=tuple(dict.fromkeys(m for m in wanted if m in titles)),
        target=_index(query, "target", problems),
        versus=_index(query, "versus", problems),
        versus_by=known("by", questions.VERSUS, "logits"),
        display=Display(
            opacity=_within(query, "opacity", 0, 1, displays.USUAL.opacity, problems),
            palette=known("palette", PALETTES, displays.USUAL.palette),
            how=known("scale", HOW, displays.USUAL.how),
            percentile=_within(query, "clip", 50, 100, displays.USUAL.percentile, problems),
            raw=query.get("view") == "map",
            blur=_within(query, "smooth", 0, 8, displays.USUAL.blur, problems),
        ),
        settings=settings_of(query, "image", problems),
    ), problems


def changed(kind: str, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a method's controls that differ from what these show at first."""
    usual = {control.name: control.shown for control in offers.controls_of(kind, name)}
    return {key: value for key, value in values.items() if value != usual[key]}


def settings_of(query: Mapping[str, str], kind: str, problems: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    titles = offers.method_titles(kind)
    for key, value in query.items():
        method, dot, name = key.partition(".")
        if not dot or method not in titles:
            continue
        try:
            built = controls.build(attrib.METHODS[method], kind, {name: value})
        except attrib.AttribError as error:
            problems.append(f"The link's setting {key[:60]} was left out: {error}")
            continue
        control = next(c for c in offers.controls_of(kind, method) if c.name == name)
        is_number = control.kind in ("whole", "real", "switch")
        found.setdefault(method, {})[name] = getattr(built, name) if is_number else value
    return found


def _index(query: Mapping[str, str], name: str, problems: list[str]) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 8:
        return int(text)
    problems.append(f"The link's {name} {text[:60]!r} is not the number of a class.")
    return None


def _within(query: Mapping[str, str], name: str, low: float, high: float, default: float, problems: list[str]) -> float:
    try:
        value = float(query.get(name, default))
    except ValueError:
        value = low - 1
    if low <= value <= high:
        return value
    problems.append(f"The link's {name} {query[name][:60]!r} is not a number from {low} to {high}.")
    return default


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
