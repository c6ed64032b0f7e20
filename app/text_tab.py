"""The text tab: text, prediction, target, methods, coloured tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr

import attrib
from app import links, markup, predictions, text_links
from app.catalogue import Catalogue
from app.check_buttons import connect_checks
from app.displays import text_display
from app.fetching import how_to_get
from app.model_choice import connect_model
from app.offers import EXAMPLE_TEXTS
from app.parts import SIDE, Parts, draw_keep, draw_methods
from app.questions import Ask, of_kind
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
from app.scripts import ACT
from app.server import Server
from app.showing import connect_display, connect_downloads, connect_rows, connect_share
from app.text_parts import (
    ASKED,
    BEGIN,
    EMPTY,
    NOTHING,
    SHOWN,
    draw_continuation,
    draw_display,
    draw_target,
    draw_text,
    name_of,
)
from attrib.render import Display


def build(server: Server) -> None:
    """Draw the tab and connect its events; call it inside a gr.Tab."""
    parts, catalogue = Parts("text", SHOWN, ASKED), server.catalogue
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_classes=SIDE):
            draw_text(parts, catalogue)
            draw_target(parts)
            draw_continuation(parts)
        with gr.Column(scale=7, min_width=320):
            draw_methods(parts, "tx", BEGIN)
            draw_display(parts)
            parts.named["answer"] = gr.State(None, time_to_live=3600)
            parts.named["gallery"] = gr.HTML("", js_on_load=ACT, elem_id="tx-gallery")
            draw_keep(parts, "tx", f"Link (your text is part of it, up to {text_links.LONGEST} characters)")
    _connect_text(server, parts)
    connect_groups(parts)
    reading = Reading(partial(_ask, parts), text_display)
    connect_run(server, parts, reading)
    connect_display(parts, reading)
    connect_downloads(server, parts, reading)
    connect_checks(server, parts, reading)
    connect_rows(parts, reading)
    _connect_link(server.page, server.tabs, parts, catalogue)


def _connect_text(server: Server, parts: Parts) -> None:
    shown, inputs, catalogue = _shown(parts), [parts.text, parts.model], server.catalogue
    predict = guarded(partial(_predicted, parts, catalogue), parts.predictions)
    # gradio's "input" is for key presses alone: a text that is pasted, cut or dictated only changes
    parts.text.change(
        lambda old, *given: UNCHANGED if old == given[0] else predict(*given), [parts.predicted_text, *inputs], shown,
        trigger_mode="always_last", **PRIVATE,
    )  # fmt: skip
    connect_model(server, parts, predict, inputs, shown)

    def take_example(event: gr.EventData, model: str) -> tuple[str, str, str]:
        text, suited = EXAMPLE_TEXTS[int(event.index)]
        return text, suited if suited in catalogue.of("text") else model, text

    taken = parts.examples.click(take_example, parts.model, [*inputs, parts.predicted_text], **PRIVATE)
    taken.then(predict, inputs, shown, **PRIVATE)

    def choose(event: gr.EventData, found: list[dict[str, Any]]) -> Any:
        return int(event.index), markup.bars(found, int(event.index), EMPTY)

    parts.predictions.click(choose, parts.predicted, [parts.target, parts.predictions], **PRIVATE)
    parts.target.input(
        lambda found, target: markup.bars(found, target, EMPTY), [parts.predicted, parts.target], parts.predictions,
        **PRIVATE,
    )  # fmt: skip


def _shown(parts: Parts) -> list[Any]:
    names = "predicted_text predicted predictions target versus status fetch continue_box"
    return [parts.named[name] for name in names.split()]


def _predicted(parts: Parts, catalogue: Catalogue, text: str | None, model: str) -> Updates:
    """What follows from a text and a model: predictions to choose from, or what is wrong."""
    missing = catalogue.missing(model)
    updates = {
        parts.predicted_text: text, parts.predicted: [], parts.target: gr.update(value=None),
        parts.fetch: gr.update(visible=missing), parts.status: markup.status(BEGIN),
    }  # fmt: skip
    if missing:
        return updates | {parts.predictions: markup.status(how_to_get(model), "error")}
    try:
        writes = of_kind(catalogue, model, "text").task == "next_token"
        if not (text or "").strip():
            return updates | {parts.predictions: markup.bars([], None, EMPTY)}
        found = predictions.predict_text(catalogue, text or "", model)
        choices = predictions.text_choices(catalogue, model, found)
    except attrib.AttribError as error:
        return updates | {parts.predictions: markup.status(str(error), "error")}
    top = found[0]["index"]
    return updates | {
        parts.continue_box: gr.update(visible=writes),
        parts.predicted: found,
        parts.predictions: markup.bars(found, top, EMPTY),
        parts.target: gr.update(choices=choices, value=top),
        parts.versus: gr.update(choices=[NOTHING, *choices], value=NOTHING[1]),
        parts.status: markup.status("Choose a target and methods, then press Explain."),
    }


def _connect_link(page: gr.Blocks, tabs: gr.Tabs, parts: Parts, catalogue: Catalogue) -> None:
    def query(*values: Any) -> str:
        shown = text_display(*values[: len(parts.display)])
        ask = _ask(parts, values[len(parts.display) :])
        return text_links.to_query(_view(ask, shown))

    connect_share(parts, query)

    outputs = [
        tabs, parts.text, parts.model, parts.methods, *parts.display, parts.settings_box, *parts.flat,
        *parts.groups.values(), *_shown(parts), parts.new_tokens, parts.continuation,
    ]  # fmt: skip

    def restore(request: gr.Request) -> Updates:
        asked = dict(request.query_params)
        if asked.get("tab") != "text":
            return UNCHANGED
        view, problems = text_links.from_query(asked, catalogue)
        if view == text_links.TextView() and not problems:  # only the tab: what a visitor wrote meanwhile stays
            return {tabs: gr.update(selected="text")}
        return {tabs: gr.update(selected="text"), **_restored(parts, catalogue, view, problems)}

    page.load(restore, None, outputs, **PRIVATE)


def _restored(parts: Parts, catalogue: Catalogue, view: text_links.TextView, problems: list[str]) -> Updates:
    model = view.model or catalogue.of("text")[0]
    updates = _predicted(parts, catalogue, view.text, model)
    found = updates[parts.predicted]
    for name, component in ((view.target, parts.target), (view.versus, parts.versus)):
        if found and name is not None:
            updates[component] = gr.update(choices=updates[component]["choices"], value=name)
    if found and view.target is not None:
        updates[parts.predictions] = markup.bars(found, view.target, EMPTY)
    if problems:
        updates[parts.status] = markup.status(" ".join(problems), "error")
    if view.new_tokens and parts.continue_box in updates:
        updates[parts.continue_box] = gr.update(visible=True, open=True)
    shown = view.display
    values = (shown.part, shown.whole_words, shown.how, shown.palette)
    return {
        **updates, **restored_methods(parts, view.methods, view.settings), parts.text: view.text, parts.model: model,
        parts.new_tokens: view.new_tokens, parts.continuation: view.continuation,
        **dict(zip(parts.display, values, strict=True)),
    }  # fmt: skip


def _ask(parts: Parts, values: Sequence[Any]) -> Ask:
    text, model, chosen, target, versus, new_tokens, continuation, *flat = values
    return Ask(
        "", model, methods_of(parts, chosen, flat), name_of(target), name_of(versus), text=text or "",
        new_tokens=int(new_tokens or 0), continuation=continuation or "",
    )  # fmt: skip


def _view(ask: Ask, display: Display) -> text_links.TextView:
    return text_links.TextView(
        text=ask.text or "",
        model=ask.model,
        methods=tuple(name for name, _ in ask.methods),
        target=ask.target,
        versus=ask.versus,
        new_tokens=ask.new_tokens,
        continuation=ask.continuation,
        display=display,
        settings={name: links.changed("text", name, values) for name, values in ask.methods},
    )
