"""The text tab: text, prediction, target, methods, coloured tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import gradio as gr

import attrib
from app import fetching, links, markup, offers, predictions, text_links
from app.catalogue import Catalogue
from app.displays import text_display
from app.offers import EXAMPLE_TEXTS
from app.parts import SHOW_LINK, Parts, draw_keep, draw_methods
from app.questions import Ask
from app.running import PRIVATE, Reading, connect_display, connect_groups, connect_run, guarded, methods_of
from app.runs import Runs
from app.server import Server
from app.text_parts import ASKED, BEGIN, EMPTY, NOTHING, SHOWN, draw_display, draw_target, draw_text
from attrib.models import MODELS
from attrib.render import Display


def build(server: Server) -> None:
    """Draw the tab and connect its events; call it inside a gr.Tab."""
    parts, catalogue = Parts("text", SHOWN, ASKED), server.catalogue
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            draw_text(parts, catalogue)
            draw_target(parts)
        with gr.Column(scale=7, min_width=320):
            draw_methods(parts, "tx", BEGIN)
            draw_display(parts)
            parts.named["answer"] = gr.State(None, time_to_live=3600)
            parts.named["gallery"] = gr.HTML("", elem_id="tx-gallery")
            draw_keep(parts, "tx", f"Link (your text is part of it, up to {text_links.LONGEST} characters)")
    _connect_text(parts, catalogue)
    _connect_fetch(parts, catalogue, server.runs)
    connect_groups(parts)
    reading = Reading(partial(_ask, parts), text_display)
    connect_run(server, parts, reading)
    connect_display(server, parts, reading)
    _connect_link(server.page, server.tabs, parts, catalogue)


def _connect_text(parts: Parts, catalogue: Catalogue) -> None:
    shown = [parts.predicted, parts.predictions, parts.target, parts.versus, parts.status, parts.fetch]
    inputs = [parts.text, parts.model]
    predict = guarded(partial(_predicted, catalogue), shown, 4)
    often = {**PRIVATE, "trigger_mode": "always_last"}
    parts.text.input(predict, inputs, shown, **often)
    parts.model.input(predict, inputs, shown, **often)

    def take_example(event: gr.EventData, model: str) -> tuple[str, str]:
        text, suited = EXAMPLE_TEXTS[int(event.index)]
        return text, suited if suited in catalogue.of("text") else model

    taken = parts.examples.click(take_example, parts.model, inputs, **PRIVATE)
    taken.then(predict, inputs, shown, **PRIVATE)

    def choose(event: gr.EventData, found: list[dict[str, Any]]) -> Any:
        return int(event.index), markup.bars(found, int(event.index), EMPTY)

    parts.predictions.click(choose, parts.predicted, [parts.target, parts.predictions], **PRIVATE)
    parts.target.input(
        lambda found, target: markup.bars(found, target, EMPTY), [parts.predicted, parts.target], parts.predictions,
        **PRIVATE,
    )  # fmt: skip


def _predicted(catalogue: Catalogue, text: str | None, model: str) -> tuple[Any, ...]:
    """Updates of: predicted, predictions, target, versus, status, fetch."""
    missing = catalogue.missing(model)
    none: tuple[Any, ...] = ([], markup.bars([], None, EMPTY), gr.update(value=None), gr.skip())
    if missing:
        return *none, markup.status(_how_to_get(model), "error"), gr.update(visible=True)
    hidden = gr.update(visible=False)
    if not (text or "").strip():
        return *none, markup.status(BEGIN), hidden
    try:
        found = predictions.predict_text(catalogue, text or "", model)
        choices = predictions.text_choices(catalogue, model, found)
    except attrib.ModelUnavailable as error:
        return *none, markup.status(str(error), "error"), gr.update(visible=True)
    except attrib.AttribError as error:
        return *none, markup.status(str(error), "error"), hidden
    top = found[0]["index"]
    return (
        found, markup.bars(found, top, EMPTY), gr.update(choices=choices, value=top),
        gr.update(choices=[NOTHING, *choices], value=-1),
        markup.status("Choose a target and methods, then press Explain."), hidden,
    )  # fmt: skip


def _how_to_get(name: str) -> str:
    size = f" ({MODELS[name].size / 1e6:.0f} MB)" if name in MODELS else ""
    return (
        f"{name} is not on this machine yet. Press “Fetch this model”{size}, or run: attrib models pull {name}; "
        "either needs a network once."
    )


def _connect_fetch(parts: Parts, catalogue: Catalogue, runs: Runs) -> None:
    shown = [parts.predicted, parts.predictions, parts.target, parts.versus, parts.status, parts.fetch]

    def fetch(request: gr.Request, name: str) -> Iterator[tuple[Any, Any]]:
        session = f"fetch:{request.session_hash}"
        run = runs.begin(session)
        try:
            for fraction, message in fetching.fetch(catalogue, name, run):
                yield markup.status(message, "busy", fraction), gr.update(interactive=False)
            yield markup.status(f"{name} is ready.", "done"), gr.update(visible=False, interactive=True)
        except attrib.AttribError as error:
            yield markup.status(str(error), "error"), gr.update(visible=True, interactive=True)
        finally:
            runs.end(session, run)

    event = parts.fetch.click(fetch, parts.model, [parts.status, parts.fetch], trigger_mode="once", **PRIVATE)
    event.then(guarded(partial(_after_fetch, catalogue), shown, 4), [parts.text, parts.model], shown, **PRIVATE)


def _after_fetch(catalogue: Catalogue, text: str | None, model: str) -> tuple[Any, ...]:
    """The prediction, unless the fetch failed: then its message stays."""
    return (gr.skip(),) * 6 if catalogue.missing(model) else _predicted(catalogue, text, model)


def _connect_link(page: gr.Blocks, tabs: gr.Tabs, parts: Parts, catalogue: Catalogue) -> None:
    def query(*values: Any) -> str:
        shown = text_display(*values[: len(parts.display)])
        ask = _ask(parts, values[len(parts.display) :])
        return text_links.to_query(_view(ask, shown))

    parts.share.click(query, [*parts.display, *parts.question], parts.query, **PRIVATE).then(
        None, parts.query, parts.link, js=SHOW_LINK, **PRIVATE
    ).then(lambda: gr.update(visible=True), None, parts.link, queue=False, **PRIVATE)

    outputs = [
        tabs, parts.text, parts.model, parts.methods, *parts.display, parts.settings_box, *parts.flat,
        *parts.groups.values(), parts.predicted, parts.predictions, parts.target, parts.versus, parts.status,
        parts.fetch,
    ]  # fmt: skip

    def restore(request: gr.Request) -> list[Any]:
        asked = dict(request.query_params)
        if asked.get("tab") != "text":
            return [gr.skip()] * len(outputs)
        view, problems = text_links.from_query(asked, catalogue.of("text"))
        return _restored(parts, catalogue, view, problems)

    page.load(restore, None, outputs, **PRIVATE)


def _restored(parts: Parts, catalogue: Catalogue, view: text_links.TextView, problems: list[str]) -> list[Any]:
    model = view.model or catalogue.of("text")[0]
    methods = list(view.methods) or offers.preselected("text")
    found, bars, target, versus, status, fetch = _predicted(catalogue, view.text, model)
    if found and view.target is not None:
        target = gr.update(choices=target["choices"], value=view.target)
        bars = markup.bars(found, view.target, EMPTY)
    if found and view.versus is not None:
        versus = gr.update(choices=versus["choices"], value=view.versus)
    if problems:
        status = markup.status(" ".join(problems), "error")
    values = [
        view.settings.get(name, {}).get(control.name, control.shown)
        for name in parts.settings
        for control in offers.controls_of("text", name)
    ]
    shown = view.display
    groups = [gr.update(visible=name in methods, open=bool(view.settings.get(name))) for name in parts.groups]
    return [
        gr.update(selected="text"), view.text, model, methods, shown.part, shown.whole_words, shown.how, shown.palette,
        gr.update(open=bool(view.settings)), *values, *groups, found, bars, target, versus, status, fetch,
    ]  # fmt: skip


def _ask(parts: Parts, values: Sequence[Any]) -> Ask:
    text, model, chosen, target, versus, *flat = values
    return Ask("", model, methods_of(parts, chosen, flat), _name(target), _name(versus), text=text or "")


def _name(value: Any) -> int | str | None:
    """A choice of a list is an index; what was written is a label or token, its spaces included."""
    if value is None or value == "" or (isinstance(value, int) and value < 0) or value == NOTHING[0]:
        return None
    return value if isinstance(value, int) else str(value)


def _view(ask: Ask, display: Display) -> text_links.TextView:
    return text_links.TextView(
        text=ask.text or "",
        model=ask.model,
        methods=tuple(name for name, _ in ask.methods),
        target=ask.target,
        versus=ask.versus,
        display=display,
        settings={name: links.changed("text", name, values) for name, values in ask.methods},
    )
