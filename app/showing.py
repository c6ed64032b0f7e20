"""What the tabs share once there is an answer: drawing it anew, choosing a row of it, and saving it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from app import downloads, markup
from app.answers import Answer
from app.parts import Parts
from app.running import PRIVATE, UNCHANGED, Reading, Updates
from app.scripts import FIND_LINK, SAVE, SHOW_LINK
from app.server import Server


def connect_display(parts: Parts, reading: Reading) -> None:
    """The display's controls redraw without computing."""

    def redraw(answer: Answer | None, *display: Any) -> Any:
        return gr.skip() if answer is None else markup.gallery(answer, reading.display(*display))

    inputs, how = [parts.answer, *parts.display], {"trigger_mode": "always_last", **PRIVATE}
    for component in parts.display:
        event = component.release if isinstance(component, gr.Slider) else component.input
        event(redraw, inputs, parts.gallery, **how)
        if isinstance(component, gr.Slider):  # arrow keys and the number box do not release
            component.change(redraw, inputs, parts.gallery, **how)


def connect_downloads(server: Server, parts: Parts, reading: Reading) -> None:
    """One click saves one file, written as the display stands."""

    def write(wanted: str, answer: Answer | None, *display: Any) -> str:
        if answer is None or not answer.results:
            raise gr.Error("There is nothing to download yet; press Explain first.", print_exception=False)
        return downloads.write_one(answer, reading.display(*display), server.folder, wanted)

    def of_card(event: gr.EventData, *values: Any) -> str:
        return write(str(event.action), *values)

    inputs, how = [parts.answer, *parts.display], {"api_visibility": "private", "show_progress": "hidden"}
    for button, handler in (
        (parts.zip, partial(write, "zip")), (parts.html, partial(write, "html")), (parts.gallery, of_card),
    ):  # fmt: skip
        button.click(handler, inputs, parts.file, **how).success(None, parts.file, None, js=SAVE, **how)


def connect_share(parts: Parts, query: Callable[..., str], **how: Any) -> None:
    """The button that writes a link. query: the part after "?", from the display's and the question's values."""
    asked = parts.share.click(query, [*parts.display, *parts.question], parts.query, **how, **PRIVATE)
    written = asked.then(None, parts.query, parts.link, js=SHOW_LINK, **PRIVATE)
    shown = written.then(lambda: gr.update(visible=True), None, parts.link, queue=False, **PRIVATE)
    shown.then(None, None, None, js=FIND_LINK.format(name=parts.link.elem_id), **PRIVATE)


def connect_rows(parts: Parts, reading: Reading) -> None:
    """A click on a generated token of a triangular map shows its cards."""

    def choose(event: gr.EventData, answer: Answer | None, *display: Any) -> Updates:
        if answer is None or not answer.continued:
            return UNCHANGED
        rows = len(next(iter(answer.results.values())))
        chosen = replace(answer, chosen=min(max(int(event.index), 0), rows - 1))
        return {parts.answer: chosen, parts.gallery: markup.gallery(chosen, reading.display(*display))}

    parts.gallery.select(choose, [parts.answer, *parts.display], [parts.answer, parts.gallery], **PRIVATE)
