"""The image tab: photo, prediction, target, methods, gallery."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any

import gradio as gr

import attrib
from app import controls, downloads, handlers, links, markup
from app.handlers import VIEWS, Answer, Ask, Catalogue
from app.image_parts import RAW, Parts, draw_display, draw_methods, draw_photo, draw_results, draw_target, path_of
from app.runs import Runs
from attrib.render import Display

log = logging.getLogger("attrib.app")

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
REDRAW = 1.0  # seconds between two drawings of a growing gallery
HEAVY = "explanations"  # one queue for the button and the API
_SHOW_LINK = """(query) => {
  history.replaceState(null, '', query ? '?' + query : location.pathname);
  return location.href;
}"""


@dataclass(frozen=True)
class Limits:
    """folder: where files to download are written. concurrency: explanations at the same time."""

    folder: str
    concurrency: int


def build(page: gr.Blocks, catalogue: Catalogue, runs: Runs, limits: Limits) -> None:
    """Draw the tab and connect its events; call it inside a gr.Tab."""
    parts = Parts()
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            draw_photo(parts, catalogue)
            draw_target(parts, catalogue)
            draw_display(parts)
        with gr.Column(scale=7, min_width=320):
            draw_methods(parts)
            draw_results(parts)
    _connect_photo(parts, catalogue)
    _connect_run(parts, catalogue, runs, limits)
    _connect_display(parts, limits)
    _connect_link(page, parts, catalogue)
    page.unload(_stop_when_closed(runs))


def _connect_photo(parts: Parts, catalogue: Catalogue) -> None:
    shown = [parts.predicted, parts.predictions, parts.target, parts.versus, parts.status]

    def predict(payload: Any, model: str) -> tuple[Any, ...]:
        photo = path_of(payload)
        if not photo:
            return [], markup.bars([], None), gr.skip(), gr.skip(), markup.status("Choose a photo to begin.")
        try:
            found = handlers.predict(catalogue, photo, model)
        except attrib.AttribError as error:
            return [], markup.bars([], None), gr.update(value=None), gr.skip(), markup.status(str(error), "error")
        classes = handlers.class_choices(catalogue, model)
        top = found[0]["index"]
        return (
            found,
            markup.bars(found, top),
            gr.update(choices=classes, value=top),
            gr.update(choices=[("nothing", -1), *classes], value=-1),
            markup.status("Choose a target and methods, then press Explain."),
        )

    inputs = [parts.photo, parts.model]
    parts.photo.input(_guarded(predict, shown, 4), inputs, shown, **RAW, **PRIVATE)
    parts.model.input(_guarded(predict, shown, 4), inputs, shown, **RAW, **PRIVATE)

    def take_example(event: gr.EventData) -> Any:
        return list(handlers.example_photos().values())[int(event.index)]

    taken = parts.examples.click(take_example, None, parts.photo, **PRIVATE)
    taken.then(_guarded(predict, shown, 4), inputs, shown, **RAW, **PRIVATE)

    def choose(event: gr.EventData, found: list[dict[str, Any]]) -> Any:
        return int(event.index), markup.bars(found, int(event.index))

    parts.predictions.click(choose, parts.predicted, [parts.target, parts.predictions], **PRIVATE)
    parts.target.input(markup.bars, [parts.predicted, parts.target], parts.predictions, **PRIVATE)

    def show_groups(chosen: list[str]) -> list[Any]:
        return [gr.update(visible=name in chosen) for name in parts.groups]

    parts.methods.change(show_groups, parts.methods, list(parts.groups.values()), queue=False, **PRIVATE)


def _connect_run(parts: Parts, catalogue: Catalogue, runs: Runs, limits: Limits) -> None:
    outputs = [
        parts.answer, parts.gallery, parts.status, parts.explain, parts.cancel, parts.display_box, parts.keep,
        parts.slider, parts.files,
    ]  # fmt: skip

    def explain(request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        session = request.session_hash or ""
        run = runs.begin(session)
        shown, display, drawn = Answer(), handlers.USUAL, 0.0
        try:
            waiting = markup.status("Waiting for the model …", "busy")
            yield (None, "", waiting, *_running(True), *[gr.update(visible=False)] * 4)
            display = handlers.display_of(*values[: len(parts.display)])
            ask = _ask(parts, values[len(parts.display) :])
            for step in handlers.explain(ask, catalogue, run):
                shown = step.answer
                # drawing the whole gallery costs as much as a quick method: not for each one of many
                draw = step.done or (step.fresh and time.monotonic() - drawn > REDRAW)
                drawn = time.monotonic() if draw else drawn
                yield _progressed(step, display if draw else None)
        except attrib.AttribError as error:
            yield _ended(shown, display, str(error))
        except Exception:
            log.exception("an explanation failed")
            yield _ended(shown, display, _UNEXPECTED)
        finally:
            runs.end(session, run)

    parts.explain.click(
        explain, [*parts.display, *parts.question], outputs, concurrency_id=HEAVY,
        concurrency_limit=limits.concurrency, trigger_mode="once", show_progress="minimal",
        show_progress_on=parts.status, api_visibility="private", **RAW,
    )  # fmt: skip

    def cancel(request: gr.Request) -> Any:
        running = runs.cancel(request.session_hash or "")
        return markup.status("Stopping after the current step …" if running else "Nothing is running.")

    parts.cancel.click(cancel, None, parts.status, queue=False, **PRIVATE)


def _progressed(step: handlers.Step, display: Display | None) -> tuple[Any, ...]:
    """What the page shows after a step; the gallery is drawn again where a display is given."""
    told = markup.status(step.message, "done") if step.done else markup.status(step.message, "busy", step.fraction)
    running, answer = _running(not step.done), step.answer
    if display is None:
        return answer, gr.skip(), told, *running, *[gr.skip()] * 4
    slider = gr.update(visible=True, value=answer.slider) if step.done and answer.slider else gr.skip()
    ready = gr.update(visible=bool(answer.results))
    keep = ready if step.done else gr.skip()
    return answer, markup.gallery(answer, display), told, *running, ready, keep, slider, gr.skip()


def _ended(answer: Answer, display: Display, sentence: str) -> tuple[Any, ...]:
    """After an error or Cancel: what was found before stays."""
    kept = gr.update(visible=bool(answer.results))
    gallery = markup.gallery(answer, display)
    return answer, gallery, markup.status(sentence, "error"), *_running(False), kept, kept, gr.skip(), gr.skip()


def _running(yes: bool) -> tuple[Any, Any]:
    return gr.update(interactive=not yes), gr.update(interactive=yes)


def _connect_display(parts: Parts, limits: Limits) -> None:
    def redraw(answer: Answer | None, *display: Any) -> Any:
        return gr.skip() if answer is None else markup.gallery(answer, handlers.display_of(*display))

    inputs, how = [parts.answer, *parts.display], {"trigger_mode": "always_last", **PRIVATE}
    for component in parts.display:
        event = component.release if isinstance(component, gr.Slider) else component.input
        event(redraw, inputs, parts.gallery, **how)
        if isinstance(component, gr.Slider):  # arrow keys and the number box do not release
            component.change(
                redraw, [parts.answer, *parts.display], parts.gallery, trigger_mode="always_last", **PRIVATE
            )

    def prepare(answer: Answer | None, *display: Any) -> Any:
        if answer is None or not answer.results:
            raise gr.Error("There is nothing to download yet; press Explain first.", print_exception=False)
        return gr.update(value=downloads.write(answer, handlers.display_of(*display), limits.folder), visible=True)

    parts.prepare.click(
        prepare, [parts.answer, *parts.display], parts.files, api_visibility="private", show_progress="minimal"
    )


def _connect_link(page: gr.Blocks, parts: Parts, catalogue: Catalogue) -> None:
    def query(*values: Any) -> str:
        ask = _ask(parts, values[len(parts.display) :])
        return links.to_query(_view(ask, handlers.display_of(*values[: len(parts.display)])))

    parts.share.click(query, [*parts.display, *parts.question], parts.query, **RAW, **PRIVATE).then(
        None, parts.query, parts.link, js=_SHOW_LINK, **PRIVATE
    ).then(lambda: gr.update(visible=True), None, parts.link, queue=False, **PRIVATE)

    flat = [component for components in parts.settings.values() for component in components]
    outputs = [
        parts.photo, parts.model, parts.methods, parts.predicted, parts.predictions, parts.target, parts.versus,
        parts.versus_by, *parts.display, parts.status, parts.compare_box, parts.settings_box, *flat,
        *parts.groups.values(),
    ]  # fmt: skip

    def restore(request: gr.Request) -> list[Any]:
        view, problems = links.from_query(dict(request.query_params), catalogue.names)
        if view == links.View() and not problems:  # a visitor may have been quicker than this event
            return [gr.skip()] * len(outputs)
        return _restored(parts, catalogue, view, problems)

    page.load(restore, None, outputs, **PRIVATE)


def _restored(parts: Parts, catalogue: Catalogue, view: links.View, problems: list[str]) -> list[Any]:
    model = view.model or catalogue.names[0]
    photo = handlers.example_photos().get(view.photo or "")
    found: list[dict[str, Any]] = []
    classes: list[tuple[str, int]] = []
    try:
        classes = handlers.class_choices(catalogue, model)
        found = handlers.predict(catalogue, photo, model) if photo else []
    except attrib.AttribError as error:
        problems = [*problems, str(error)]
    target, versus = (_offered(index, classes, problems) for index in (view.target, view.versus))
    target = target if target is not None else (found[0]["index"] if found else None)
    methods = list(view.methods) or handlers.preselected()
    hint = "Press Explain." if photo else "Choose a photo to begin."
    status = markup.status(" ".join(problems), "error") if problems else markup.status(hint)
    display = view.display
    values = [
        view.settings.get(name, {}).get(control.name, control.shown)
        for name in parts.settings
        for control in controls.describe(attrib.METHODS[name])
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


def _stop_when_closed(runs: Runs) -> Callable[..., None]:
    def stop(request: gr.Request) -> None:
        runs.cancel(request.session_hash or "")

    return stop


_UNEXPECTED = "Something failed for a reason that is not yours; the server's log has it."


def _guarded(handler: Callable[..., Any], outputs: list[Any], status: int) -> Callable[..., Any]:
    """An unexpected exception becomes a sentence in the status, not a page of Python."""

    @wraps(handler)
    def guarded(*values: Any) -> Any:
        try:
            return handler(*values)
        except Exception:
            log.exception("a handler failed")
            return tuple(markup.status(_UNEXPECTED, "error") if i == status else gr.skip() for i in range(len(outputs)))

    return guarded


def _ask(parts: Parts, values: tuple[Any, ...]) -> Ask:
    photo, model, chosen, target, versus, versus_by, *flat = values
    methods, position = [], 0
    for name, components in parts.settings.items():
        mine = flat[position : position + len(components)]
        position += len(components)
        if name in chosen:
            known = controls.describe(attrib.METHODS[name])
            methods.append((name, {c.name: value for c, value in zip(known, mine, strict=True)}))
    return Ask(
        path_of(photo),
        model,
        tuple(methods),
        target if target != "" else None,
        None if versus == -1 else versus,
        versus_by,
    )


def _view(ask: Ask, display: Display) -> links.View:
    stem = {value.rsplit("/", 1)[-1]: name for name, value in handlers.example_photos().items()}
    return links.View(
        photo=stem.get(ask.photo.rsplit("/", 1)[-1]),
        model=ask.model,
        methods=tuple(name for name, _ in ask.methods),
        target=ask.target,  # type: ignore[arg-type]  # the page's lists hold indices only
        versus=ask.versus,  # type: ignore[arg-type]
        versus_by=ask.versus_by,
        display=display,
        settings={name: links.changed(attrib.METHODS[name], values) for name, values in ask.methods},
    )
