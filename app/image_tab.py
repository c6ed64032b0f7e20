"""The image tab: photo, prediction, target, methods, gallery."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr

import attrib
from app import displays, links, markup, offers, predictions
from app.catalogue import Catalogue
from app.displays import VIEWS
from app.image_parts import ASKED, SHOWN, draw_display, draw_photo, draw_results, draw_target, path_of
from app.parts import RAW, SHOW_LINK, Parts, draw_methods
from app.questions import Ask
from app.running import PRIVATE, Reading, connect_display, connect_groups, connect_run, guarded, methods_of
from app.server import Server
from attrib.render import Display


def build(server: Server) -> None:
    """Draw the tab and connect its events; call it inside a gr.Tab."""
    parts, catalogue = Parts("image", SHOWN, ASKED), server.catalogue
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            draw_photo(parts, catalogue)
            draw_target(parts, catalogue)
            draw_display(parts)
        with gr.Column(scale=7, min_width=320):
            draw_methods(parts, "at", "Choose a photo to begin.")
            draw_results(parts)
    _connect_photo(parts, catalogue)
    connect_groups(parts)
    reading = Reading(partial(_ask, parts), displays.image_display)
    connect_run(server, parts, reading, parts.slider)
    connect_display(server, parts, reading)
    _connect_link(server.page, parts, catalogue)


def _connect_photo(parts: Parts, catalogue: Catalogue) -> None:
    shown = [parts.predicted, parts.predictions, parts.target, parts.versus, parts.status]

    def predict(payload: Any, model: str) -> tuple[Any, ...]:
        photo = path_of(payload)
        if not photo:
            return [], markup.bars([], None), gr.skip(), gr.skip(), markup.status("Choose a photo to begin.")
        try:
            found = predictions.predict(catalogue, photo, model)
        except attrib.AttribError as error:
            return [], markup.bars([], None), gr.update(value=None), gr.skip(), markup.status(str(error), "error")
        classes = predictions.class_choices(catalogue, model)
        top = found[0]["index"]
        return (
            found,
            markup.bars(found, top),
            gr.update(choices=classes, value=top),
            gr.update(choices=[("nothing", -1), *classes], value=-1),
            markup.status("Choose a target and methods, then press Explain."),
        )

    inputs = [parts.photo, parts.model]
    parts.photo.input(guarded(predict, shown, 4), inputs, shown, **RAW, **PRIVATE)
    parts.model.input(guarded(predict, shown, 4), inputs, shown, **RAW, **PRIVATE)

    def take_example(event: gr.EventData) -> Any:
        return list(offers.example_photos().values())[int(event.index)]

    taken = parts.examples.click(take_example, None, parts.photo, **PRIVATE)
    taken.then(guarded(predict, shown, 4), inputs, shown, **RAW, **PRIVATE)

    def choose(event: gr.EventData, found: list[dict[str, Any]]) -> Any:
        return int(event.index), markup.bars(found, int(event.index))

    parts.predictions.click(choose, parts.predicted, [parts.target, parts.predictions], **PRIVATE)
    parts.target.input(markup.bars, [parts.predicted, parts.target], parts.predictions, **PRIVATE)


def _connect_link(page: gr.Blocks, parts: Parts, catalogue: Catalogue) -> None:
    def query(*values: Any) -> str:
        ask = _ask(parts, values[len(parts.display) :])
        return links.to_query(_view(ask, displays.image_display(*values[: len(parts.display)])))

    parts.share.click(query, [*parts.display, *parts.question], parts.query, **RAW, **PRIVATE).then(
        None, parts.query, parts.link, js=SHOW_LINK, **PRIVATE
    ).then(lambda: gr.update(visible=True), None, parts.link, queue=False, **PRIVATE)

    outputs = [
        parts.photo, parts.model, parts.methods, parts.predicted, parts.predictions, parts.target, parts.versus,
        parts.versus_by, *parts.display, parts.status, parts.compare_box, parts.settings_box, *parts.flat,
        *parts.groups.values(),
    ]  # fmt: skip

    def restore(request: gr.Request) -> list[Any]:
        query = dict(request.query_params)
        if query.get("tab", "image") != "image":  # not ours
            return [gr.skip()] * len(outputs)
        view, problems = links.from_query(query, catalogue.of("image"))
        if view == links.View() and not problems:  # a visitor may have been quicker than this event
            return [gr.skip()] * len(outputs)
        return _restored(parts, catalogue, view, problems)

    page.load(restore, None, outputs, **PRIVATE)


def _restored(parts: Parts, catalogue: Catalogue, view: links.View, problems: list[str]) -> list[Any]:
    model = view.model or catalogue.of("image")[0]
    photo = offers.example_photos().get(view.photo or "")
    found: list[dict[str, Any]] = []
    classes: list[tuple[str, int]] = []
    try:
        classes = predictions.class_choices(catalogue, model)
        found = predictions.predict(catalogue, photo, model) if photo else []
    except attrib.AttribError as error:
        problems = [*problems, str(error)]
    target, versus = (_offered(index, classes, problems) for index in (view.target, view.versus))
    target = target if target is not None else (found[0]["index"] if found else None)
    methods = list(view.methods) or offers.preselected()
    hint = "Press Explain." if photo else "Choose a photo to begin."
    status = markup.status(" ".join(problems), "error") if problems else markup.status(hint)
    display = view.display
    values = [
        view.settings.get(name, {}).get(control.name, control.shown)
        for name in parts.settings
        for control in offers.controls_of("image", name)
    ]
    return [
        photo, model, methods, found, markup.bars(found, target), gr.update(choices=classes, value=target),
        gr.update(choices=[("nothing", -1), *classes], value=-1 if versus is None else versus), view.versus_by,
        display.opacity, display.palette, display.how, display.percentile, VIEWS[display.raw],
        display.blur, status, gr.update(open=versus is not None), gr.update(open=bool(view.settings)),
        *values, *[gr.update(visible=name in methods, open=bool(view.settings.get(name))) for name in parts.groups],
    ]  # fmt: skip


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
