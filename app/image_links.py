"""The link of the image tab: made of what the page shows, and restored into it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app import links, markup, offers
from app.catalogue import Catalogue
from app.displays import VIEWS
from app.image_parts import path_of
from app.image_photo import NO_PREDICTIONS, NOTHING, predicted_by, shown_by
from app.parts import RAW, Parts
from app.questions import Ask
from app.running import PRIVATE, UNCHANGED, Reading, Updates, restored_methods
from app.server import Server
from app.showing import connect_share
from attrib.render import Display


def connect_link(server: Server, parts: Parts, reading: Reading) -> None:
    """A visitor may be quicker than a link: what they dropped meanwhile is theirs, and is asked for afterwards."""
    catalogue = server.catalogue

    def query(*values: Any) -> str:
        shown = len(parts.display)
        return links.to_query(_view(reading.ask(values[shown:]), reading.display(*values[:shown])))

    connect_share(parts, query, **RAW)

    settings = [
        parts.photo, parts.model, parts.methods, parts.versus_by, *parts.display, parts.compare_box,
        parts.settings_box, *parts.flat, *parts.groups.values(),
    ]  # fmt: skip

    def restore(request: gr.Request) -> Updates:
        asked = _asked(request, catalogue)
        return UNCHANGED if asked is None else _settings(parts, asked[0])

    def target(payload: Any, model: str, request: gr.Request) -> Updates:
        asked = _asked(request, catalogue)
        return UNCHANGED if asked is None else _target(parts, catalogue, path_of(payload), model, *asked)

    restored = server.page.load(restore, None, settings, **PRIVATE)
    restored.then(target, [parts.photo, parts.model], shown_by(parts), **RAW, **PRIVATE)


def _asked(request: gr.Request, catalogue: Catalogue) -> tuple[links.View, list[str]] | None:
    query = dict(request.query_params)
    if query.get("tab", "image") != "image":  # not ours
        return None
    view, problems = links.from_query(query, catalogue)
    return (view, problems) if view != links.View() or problems else None


def _settings(parts: Parts, view: links.View) -> Updates:
    shown = view.display
    values = (shown.opacity, shown.palette, shown.how, shown.percentile, VIEWS[shown.raw], shown.blur)
    given = ((parts.photo, offers.example_photos().get(view.photo or "")), (parts.model, view.model))
    return {
        **restored_methods(parts, view.methods, view.settings), parts.versus_by: view.versus_by,
        parts.compare_box: gr.update(open=view.versus is not None),
        **dict(zip(parts.display, values, strict=True)),
        **{component: value for component, value in given if value is not None},
    }  # fmt: skip


def _target(
    parts: Parts, catalogue: Catalogue, photo: str, model: str, view: links.View, problems: list[str]
) -> Updates:
    updates = predicted_by(parts, catalogue, photo, model)
    classes = (updates.get(parts.versus) or {}).get("choices", [NOTHING])[1:]
    target, versus = (_offered(index, classes, problems) for index in (view.target, view.versus))
    if target is not None:
        updates[parts.predictions] = markup.bars(updates[parts.predicted], target)
        updates[parts.target] = gr.update(choices=classes, value=target)
    elif not photo:  # one may be on its way
        updates[parts.target] = gr.update(choices=classes)
    if versus is not None:
        updates[parts.versus] = gr.update(choices=[NOTHING, *classes], value=versus)
    if updates[parts.predictions] == NO_PREDICTIONS:
        updates = {component: updates[component] for component in (parts.target, parts.versus, parts.fetch)}
    if problems:
        updates[parts.status] = markup.status(" ".join(problems), "error")
    return updates


def _offered(index: int | None, classes: list[tuple[str, int]], problems: list[str]) -> int | None:
    if index is None or index < len(classes):
        return index
    problems.append(f"The link asks for class {index}; this model has {len(classes)}.")
    return None


def _view(ask: Ask, display: Display) -> links.View:
    stem = {value.rsplit("/", 1)[-1]: name for name, value in offers.example_photos().items()}
    return links.View(
        photo=stem.get(ask.photo.rsplit("/", 1)[-1]),
        model=ask.model,
        methods=tuple(name for name, _ in ask.methods),
        target=ask.target,  # type: ignore[arg-type]  # the page's lists hold indices only
        versus=ask.versus,  # type: ignore[arg-type]
        versus_by=ask.versus_by,
        display=display,
        settings={name: links.changed("image", name, values) for name, values in ask.methods},
    )
