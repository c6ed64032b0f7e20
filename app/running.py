"""What the tabs share: starting, watching and cancelling a run, and asking a question of a page's values."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import gradio as gr

import attrib
from app import answers, busy, controls, displays, explaining, markup, offers
from app.answers import Answer
from app.fetching import how_to_get
from app.parts import RAW, Parts
from app.questions import Ask
from app.runs import STOPPING
from app.server import Server
from attrib.render import Display

log = logging.getLogger("attrib.app")

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
REDRAW = 1.0  # seconds at least between two drawings of a growing gallery
HEAVY = "explanations"  # one queue for the buttons and the API
UNEXPECTED = "Something failed for a reason that is not yours; the server's log has it."

Updates = dict[Any, Any]  # component -> its new value
UNCHANGED: Updates = gr.skip()


@dataclass(frozen=True)
class Reading:
    """How a tab's components become a question and a display."""

    ask: Callable[[Sequence[Any]], Ask]
    display: Callable[..., Display]


def connect_run(server: Server, parts: Parts, reading: Reading, slider: Any = None) -> None:
    """The Explain and Cancel buttons of a tab. slider: shows the photo before and after an ascent."""
    runs = server.runs
    hidden = [parts.display_box, parts.keep, *([slider] if slider is not None else [])]
    outputs = [parts.answer, parts.gallery, parts.status, parts.explain, parts.cancel, *hidden]

    def explain(request: gr.Request, *values: Any) -> Iterator[Updates]:
        session, _ = sessions_of(request)
        run = runs.begin(session)
        shown, display, drawn, pause = Answer(), displays.USUAL, 0.0, REDRAW
        try:
            waiting = markup.status("Waiting for the model …", "busy")
            yield {parts.answer: None, parts.gallery: "", parts.status: waiting, **running(parts, True),
                   **{component: gr.update(visible=False) for component in hidden}}  # fmt: skip
            display = reading.display(*values[: len(parts.display)])
            ask = reading.ask(values[len(parts.display) :])
            if server.catalogue.missing(ask.model):  # a download is asked for, and shown, by its own button
                raise attrib.ModelUnavailable(how_to_get(ask.model))
            for step in explaining.explain(ask, server.catalogue, run):
                shown = step.answer
                # drawing the whole gallery costs more than a quick method: not for each one of many
                draw = step.done or (step.fresh and time.monotonic() - drawn > pause)
                begun = time.monotonic()
                updates = _progressed(parts, step, display if draw else None, slider)
                if draw:
                    drawn = time.monotonic()
                    pause = max(REDRAW, 5 * (drawn - begun))
                yield updates
        except attrib.AttribError as error:
            yield ended(parts, shown, display, str(error))
        except Exception:
            log.exception("an explanation failed")
            yield ended(parts, shown, display, UNEXPECTED)
        finally:
            runs.end(session, run)

    started = parts.explain.click(
        explain, [*parts.display, *parts.question], outputs, concurrency_id=HEAVY,
        concurrency_limit=server.concurrency, trigger_mode="once", show_progress="minimal",
        show_progress_on=parts.status, api_visibility="private", **RAW,
    )  # fmt: skip
    connect_refusal(started, parts)
    connect_cancel(server, parts)


def connect_refusal(started: Any, parts: Parts) -> None:
    """What a handler meets it says itself: this is told where it was never called."""
    refused = json.dumps(markup.status(busy.TOLD, "error"))
    started.failure(None, None, parts.status, js=f"() => {refused}", queue=False, **PRIVATE)


def connect_cancel(server: Server, parts: Parts) -> None:
    """The browser writes that it stops: a word of the server's could arrive after the run's last one, and stay."""

    def cancel(request: gr.Request) -> Any:
        running = [server.runs.cancel(session) for session in sessions_of(request)]
        return gr.skip() if any(running) else markup.status("Nothing is running.")

    stopping = json.dumps(markup.status(STOPPING))
    heard = parts.cancel.click(None, None, parts.status, js=f"() => {stopping}", queue=False, **PRIVATE)
    heard.then(cancel, None, parts.status, queue=False, **PRIVATE)


def sessions_of(request: gr.Request) -> tuple[str, str]:
    """The names of a browser tab's run, and of what it fetches."""
    return f"{request.session_hash}", f"fetch:{request.session_hash}"


def connect_groups(parts: Parts) -> None:
    """Only the chosen methods show their settings."""

    def show_groups(chosen: list[str]) -> list[Any]:
        return [gr.update(visible=name in chosen) for name in parts.groups]

    parts.methods.change(show_groups, parts.methods, list(parts.groups.values()), queue=False, **PRIVATE)


def restored_methods(parts: Parts, chosen: Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> Updates:
    """Updates that show these methods as chosen (none: the usual ones) with these settings."""
    chosen = list(chosen) or offers.preselected(parts.kind)
    updates = {parts.methods: chosen, parts.settings_box: gr.update(open=bool(settings))}
    for name, components in parts.settings.items():
        updates[parts.groups[name]] = gr.update(visible=name in chosen, open=bool(settings.get(name)))
        for control, component in zip(offers.controls_of(parts.kind, name), components, strict=True):
            updates[component] = settings.get(name, {}).get(control.name, control.shown)
    return updates


def methods_of(parts: Parts, chosen: Sequence[str], flat: Sequence[Any]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The chosen methods with the values of their controls; flat: the values of all controls."""
    methods, position = [], 0
    for name, components in parts.settings.items():
        mine = flat[position : position + len(components)]
        position += len(components)
        if name in chosen:
            known = controls.describe(attrib.METHODS[name], parts.kind)
            methods.append((name, {c.name: value for c, value in zip(known, mine, strict=True)}))
    return tuple(methods)


def guarded(handler: Callable[..., Updates], said: Any) -> Callable[..., Updates]:
    """An unexpected exception becomes a sentence in `said`, not a page of Python."""

    @wraps(handler)
    def guarded_handler(*values: Any) -> Updates:
        try:
            return handler(*values)
        except Exception:
            log.exception("a handler failed")
            return {said: markup.status(UNEXPECTED, "error")}

    return guarded_handler


def _progressed(parts: Parts, step: answers.Step, display: Display | None, slider: Any) -> Updates:
    """What the page shows after a step; the gallery is drawn again where a display is given."""
    told = markup.status(step.message, "done") if step.done else markup.status(step.message, "busy", step.fraction)
    answer = step.answer
    updates = {parts.answer: answer, parts.status: told, **running(parts, not step.done)}
    if display is None:
        return updates
    ready = gr.update(visible=bool(answer.results))
    updates |= {parts.gallery: markup.gallery(answer, display, checks=step.done), parts.display_box: ready}
    if step.done:
        updates[parts.keep] = ready
        if answer.slider and slider is not None:
            updates[slider] = gr.update(visible=True, value=answer.slider)
    return updates


def ended(parts: Parts, answer: Answer, display: Display, sentence: str) -> Updates:
    """After an error or Cancel: what was found before stays."""
    kept = gr.update(visible=bool(answer.results))
    return {
        parts.answer: answer,
        parts.gallery: markup.gallery(answer, display),
        parts.status: markup.status(sentence, "error"),
        **running(parts, False),
        parts.display_box: kept,
        parts.keep: kept,
    }


def running(parts: Parts, yes: bool) -> Updates:
    return {parts.explain: gr.update(interactive=not yes), parts.cancel: gr.update(interactive=yes)}
