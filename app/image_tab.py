"""The image tab: photo, prediction, target, methods, gallery."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr

import attrib
from app import displays, links, markup, offers, predictions
from app.catalogue import Catalogue
from app.check_buttons import connect_checks
from app.displays import VIEWS
from app.image_parts import ASKED, SHOWN, draw_display, draw_photo, draw_results, draw_target, path_of
from app.model_choice import connect_model, how_to_get
from app.parts import RAW, SHOW_LINK, Parts, draw_methods
from app.questions import Ask
from app.running import (
    PRIVATE,
    UNCHANGED,
    Reading,
    Updates,
    connect_groups,
    connect_run,
    guarded,
    methods_of,
    restored_methods,
)
from app.server import Server
from app.showing import connect_display, connect_downloads
from attrib.render import Display

BEGIN = "Choose a photo to begin."
NOTHING = ("nothing", -1)


def build(server: Server) -> None:
    """Draw the tab and connect its events; call it inside a gr.Tab."""
    parts, catalogue = Parts("image", SHOWN, ASKED), server.catalogue
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            draw_photo(parts, catalogue)
            draw_target(parts, catalogue)
            draw_display(parts)
        with gr.Column(scale=7, min_width=320):
            draw_methods(parts, "at", BEGIN)
            draw_results(parts)
    _connect_photo(server, parts)
    connect_groups(parts)
    reading = Reading(partial(_ask, parts), displays.image_display)
    connect_run(server, parts, reading, parts.slider)
    connect_display(parts, reading)
    connect_downloads(server, parts, reading)
    connect_checks(server, parts, reading)
    _connect_link(server.page, parts, catalogue)


def _connect_photo(server: Server, parts: Parts) -> None:
    shown, inputs = _shown(parts), [parts.photo, parts.model]

    def predicted(payload: Any, model: str) -> Updates:
        return _predicted(parts, server.catalogue, path_of(payload), model)

    predict = guarded(predicted, parts.predictions)
    parts.photo.input(predict, inputs, shown, **RAW, **PRIVATE)
    connect_model(server, parts, predict, inputs, shown, **RAW)

    def take_example(event: gr.EventData) -> Any:
        return list(offers.example_photos().values())[int(event.index)]

    taken = parts.examples.click(take_example, None, parts.photo, **PRIVATE)
    taken.then(predict, inputs, shown, **RAW, **PRIVATE)

    def choose(event: gr.EventData, found: list[dict[str, Any]]) -> Any:
        return int(event.index), markup.bars(found, int(event.index))

    parts.predictions.click(choose, parts.predicted, [parts.target, parts.predictions], **PRIVATE)
    parts.target.input(markup.bars, [parts.predicted, parts.target], parts.predictions, **PRIVATE)


def _shown(parts: Parts) -> list[Any]:
    return [parts.photo, parts.predicted, parts.predictions, parts.target, parts.versus, parts.status, parts.fetch]


def _predicted(parts: Parts, catalogue: Catalogue, photo: str, model: str) -> Updates:
    """What follows from a photo and a model: predictions to choose from, or what is wrong."""
    missing = catalogue.missing(model)
    updates = {parts.predicted: [], parts.target: gr.update(value=None), parts.fetch: gr.update(visible=missing),
               parts.status: markup.status(BEGIN)}  # fmt: skip
    if missing:
        return updates | {parts.predictions: markup.status(how_to_get(model), "error")}
    try:
        classes = predictions.class_choices(catalogue, model)
        updates[parts.versus] = gr.update(choices=[NOTHING, *classes], value=NOTHING[1])
        if not photo:
            return updates | {parts.predictions: markup.bars([], None), parts.target: gr.update(choices=classes)}
    except attrib.AttribError as error:
        return updates | {parts.predictions: markup.status(str(error), "error")}
    try:
        found = predictions.predict(catalogue, photo, model)
    except attrib.AttribError as error:  # the photo cannot be shown either
        return updates | {parts.photo: None, parts.predictions: markup.status(str(error), "error")}
    top = found[0]["index"]
    return updates | {
        parts.predicted: found,
        parts.predictions: markup.bars(found, top),
        parts.target: gr.update(choices=classes, value=top),
        parts.status: markup.status("Choose a target and methods, then press Explain."),
    }


def _connect_link(page: gr.Blocks, parts: Parts, catalogue: Catalogue) -> None:
    def query(*values: Any) -> str:
        ask = _ask(parts, values[len(parts.display) :])
        return links.to_query(_view(ask, displays.image_display(*values[: len(parts.display)])))

    parts.share.click(query, [*parts.display, *parts.question], parts.query, **RAW, **PRIVATE).then(
        None, parts.query, parts.link, js=SHOW_LINK, **PRIVATE
    ).then(lambda: gr.update(visible=True), None, parts.link, queue=False, **PRIVATE)

    outputs = [
        *_shown(parts), parts.model, parts.methods, parts.versus_by, *parts.display, parts.compare_box,
        parts.settings_box, *parts.flat, *parts.groups.values(),
    ]  # fmt: skip

    def restore(request: gr.Request) -> Updates:
        query = dict(request.query_params)
        if query.get("tab", "image") != "image":  # not ours
            return UNCHANGED
        view, problems = links.from_query(query, catalogue)
        if view == links.View() and not problems:  # a visitor may have been quicker than this event
            return UNCHANGED
        return _restored(parts, catalogue, view, problems)

    page.load(restore, None, outputs, **PRIVATE)


def _restored(parts: Parts, catalogue: Catalogue, view: links.View, problems: list[str]) -> Updates:
    model = view.model or catalogue.of("image")[0]
    photo = offers.example_photos().get(view.photo or "")
    updates = _predicted(parts, catalogue, photo or "", model)
    classes = (updates.get(parts.versus) or {}).get("choices", [NOTHING])[1:]
    target, versus = (_offered(index, classes, problems) for index in (view.target, view.versus))
    if target is not None:
        updates[parts.target] = gr.update(choices=classes, value=target)
        updates[parts.predictions] = markup.bars(updates[parts.predicted], target)
    if versus is not None:
        updates[parts.versus] = gr.update(choices=[NOTHING, *classes], value=versus)
    if problems:
        updates[parts.status] = markup.status(" ".join(problems), "error")
    shown = view.display
    values = (shown.opacity, shown.palette, shown.how, shown.percentile, VIEWS[shown.raw], shown.blur)
    return {
        parts.photo: photo, **updates, **restored_methods(parts, view.methods, view.settings), parts.model: model,
        parts.versus_by: view.versus_by, parts.compare_box: gr.update(open=versus is not None),
        **dict(zip(parts.display, values, strict=True)),
    }  # fmt: skip


def _offered(index: int | None, classes: list[tuple[str, int]], problems: list[str]) -> int | None:
    if index is None or index < len(classes):
        return index
    problems.append(f"The link asks for class {index}; this model has {len(classes)}.")
    return None


def _ask(parts: Parts, values: Sequence[Any]) -> Ask:
    photo, model, chosen, target, versus, versus_by, *flat = values
    return Ask(
        path_of(photo),
        model,
        methods_of(parts, chosen, flat),
        target if target != "" else None,
        None if versus == -1 else versus,
        versus_by,
    )


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
