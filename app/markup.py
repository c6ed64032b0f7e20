"""Small pieces of HTML for the page; every text is escaped."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import Any

from PIL import Image, ImageOps

import attrib
from app import answers, checking, offers
from app.answers import OF_METHOD, Answer
from attrib.render import Check, Display, Entry, cards, rather_than, readable, triangle
from attrib.render.pictures import embedded


def inert(markup: str) -> str:
    """HTML that gradio's template engine takes as it is: braces, backticks and $ as entities."""
    return markup.translate({ord(c): f"&#{ord(c)};" for c in "{}$`"})


def status(text: str, kind: str = "hint", fraction: float | None = None) -> str:
    bar = ""
    if fraction is not None:
        bar = f'<progress max="100" value="{100 * fraction:.0f}" aria-label="progress"></progress>'
    role = ' role="alert"' if kind == "error" else ""  # other words are spoken by assets/app.js
    return inert(f'<div class="at-status at-{kind}"{role}><span>{html.escape(text)}</span>{bar}</div>')


BARS = "at-bars"


def bars(found: list[dict[str, Any]], chosen: Any, empty: str = "The five most probable classes will be here.") -> str:
    if not found:
        return f'<p class="at-empty">{html.escape(empty)}</p>'
    rows = []
    for row in found:
        share, index = 100 * row["probability"], row["index"]
        rows.append(
            f'<button type="button" data-index="{index}" aria-pressed="{str(index == chosen).lower()}">'
            f'<span class="at-fill" style="width:{share:.1f}%"></span>'
            f"<span>{html.escape(readable(row['label']))}</span><span>{share:.1f} %</span></button>"
        )
    return inert(f'<div class="{BARS}" role="group" aria-label="Predictions; choose the target">{"".join(rows)}</div>')


def examples() -> str:
    rows = []
    for index, (name, path) in enumerate(offers.example_photos().items()):
        with Image.open(path) as photo:
            small = embedded(ImageOps.fit(photo.convert("RGB"), (96, 96)))
        title = html.escape(name.replace("_", " "))
        rows.append(
            f'<button type="button" data-index="{index}" aria-label="Example photo: {title}" title="{title}">'
            f'<img src="{small}" alt=""></button>'
        )
    return inert(f'<div class="at-examples" role="group" aria-label="Example photos">{"".join(rows)}</div>')


def example_texts() -> str:
    rows = [
        f'<button type="button" data-index="{index}" title="{html.escape(text)}">{html.escape(text)}</button>'
        for index, (text, _) in enumerate(offers.EXAMPLE_TEXTS)
    ]
    return inert(f'<div class="at-lines" role="group" aria-label="Example texts">{"".join(rows)}</div>')


def gallery(answer: Answer, display: Display, *, checks: bool = True) -> str:
    """The answer's cards. checks: with buttons that check a map; not while something runs."""
    failures = "".join(
        f'<p class="at-warning" role="alert"><strong>{html.escape(attrib.METHODS[name].card.title)}:</strong> '
        f"{html.escape(message)}</p>"
        for name, message in answer.failures.items()
    )
    heading = f"<h2>Why {html.escape(_quoted(answer))}?</h2>" if answer.results else ""
    shown = (
        triangles(answer, display, choosable=True) + cards(_with_buttons(answer, checks), display)
        if answer.results
        else ""
    )
    return inert(heading + failures + shown)


def _quoted(answer: Answer) -> str:
    name = answers.target_name(answer)
    if not answer.continued:
        return name
    return f"“{name}” {rather_than(next(iter(answer.results.values())))}".rstrip()


def triangles(answer: Answer, display: Display, *, choosable: bool = False) -> str:
    """The maps of a continuation, one for each method; nothing for other answers."""
    if not answer.continued:
        return ""
    chosen = answer.chosen if choosable else None
    maps = [triangle(a, display, attrib.METHODS[name].card.title, chosen) for name, a in answer.results.items()]
    hint = "<p>Choose a generated token, one row, to see its tokens below.</p>" if choosable else ""
    return hint + "".join(maps)


def _with_buttons(answer: Answer, checks: bool) -> list[Entry]:
    return [
        replace(
            entry,
            actions=tuple((f"{name}.{ending}", label) for ending, label in OF_METHOD.items()),
            check=Check(name, checking.cost(answer, name), checking.why_not(answer, name)) if checks else None,
        )
        for name, entry in zip(answer.results, answers.titled(answer), strict=True)
    ]
