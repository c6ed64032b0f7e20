"""A link that restores the settings of the text tab, and the way back. The text itself is part of the link."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from app import displays, links, offers
from app.displays import USUAL_TEXT
from app.questions import MOST_NEW
from attrib.render import PALETTES, PARTS, Display

LONGEST = 1500  # characters; longer links are cut by browsers and chat programs


@dataclass(frozen=True)
class TextView:
    """Everything of the text tab that a link carries. target, versus: a class or token by its index, or as text."""

    text: str = ""
    model: str | None = None
    methods: tuple[str, ...] = ()
    target: int | str | None = None
    versus: int | str | None = None
    new_tokens: int = 0
    continuation: str = ""
    display: Display = USUAL_TEXT
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def to_query(view: TextView) -> str:
    """The part after "?", with defaults left out; a text that is too long for a link is left out too."""
    usual, shown = USUAL_TEXT, view.display
    pairs: dict[str, Any] = {
        "tab": "text",
        "text": view.text if 0 < len(view.text) <= LONGEST else None,
        "model": view.model,
        "methods": ",".join(view.methods) or None,
        "target": written(view.target),
        "versus": written(view.versus),
        "write": view.new_tokens or None,
        "continuation": view.continuation[:LONGEST] or None,
        "part": None if shown.part == usual.part else shown.part,
        "words": None if shown.whole_words == usual.whole_words else str(shown.whole_words).lower(),
        "scale": None if shown.how == usual.how else shown.how,
        "palette": None if shown.palette == usual.palette else shown.palette,
    }
    for method, values in view.settings.items():
        pairs |= {f"{method}.{name}": links.text_of(value) for name, value in values.items()}
    return urlencode({k: v for k, v in pairs.items() if v is not None}, errors="replace")


def from_query(query: Mapping[str, str], models: Container[str]) -> tuple[TextView, list[str]]:
    """The view of a link, and one sentence for each part of it that this server does not know."""
    problems: list[str] = []

    def known(name: str, table: Any, default: Any) -> Any:
        value = query.get(name)
        if value is None or value in table:
            return default if value is None else value
        problems.append(f"The link asks for {name} {value[:60]!r}, which is not on offer here.")
        return default

    titles = offers.method_titles("text")
    wanted = [m for m in query.get("methods", "").split(",") if m][:50]
    unknown = [m[:60] for m in wanted if m not in titles]
    if unknown:
        problems.append(f"The link asks for methods that are not on offer here: {', '.join(unknown)}.")
    write = known("write", [str(n) for n in range(MOST_NEW + 1)], "0")
    words = known("words", ("true", "false"), str(USUAL_TEXT.whole_words).lower())
    return TextView(
        text=query.get("text", "")[:LONGEST],
        model=known("model", models, None),
        methods=tuple(dict.fromkeys(m for m in wanted if m in titles)),
        target=read(query.get("target")),
        versus=read(query.get("versus")),
        new_tokens=int(write),
        continuation=query.get("continuation", "")[:LONGEST],
        display=Display(
            palette=known("palette", PALETTES, USUAL_TEXT.palette),
            how=known("scale", displays.TEXT_SCALES, USUAL_TEXT.how),
            part=known("part", PARTS, USUAL_TEXT.part),
            whole_words=words == "true",
        ),
        settings=links.settings_of(query, "text", problems),
    ), problems


def written(name: int | str | None) -> str | None:
    """A token given as text gets a quote in front: "7" is a token, 7 is an index."""
    return None if name is None else str(name) if isinstance(name, int) else f"'{name}"


def read(text: str | None) -> int | str | None:
    if text is None or not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 8:
        return int(text)
    return text.removeprefix("'")[:100]
