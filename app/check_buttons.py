"""The buttons "Check this map" of a tab: a run like Explain, with progress and Cancel."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import gradio as gr

import attrib
from app import checking, markup
from app.answers import Answer
from app.parts import Parts
from app.running import HEAVY, PRIVATE, UNEXPECTED, Reading, Updates, connect_refusal, ended, running
from app.runs import Runs
from app.server import Server
from attrib.render import Display

log = logging.getLogger("attrib.app")


def connect_checks(server: Server, parts: Parts, reading: Reading) -> None:
    """A click checks the map of its card; cards are drawn anew once all its lights are known."""

    def check(event: gr.EventData, request: gr.Request, answer: Answer | None, *display: object) -> Iterator[Updates]:
        if answer is None or not answer.results:
            yield {parts.status: markup.status("There is nothing to check yet; press Explain first.", "error")}
            return
        name, session = str(getattr(event, "method", "")), f"{request.session_hash}"
        yield from _checked(server, parts, answer, name, session, reading.display(*display))

    started = parts.gallery.submit(
        check, [parts.answer, *parts.display],
        [parts.answer, parts.gallery, parts.status, parts.explain, parts.cancel, parts.display_box, parts.keep],
        concurrency_id=HEAVY, concurrency_limit=server.concurrency, trigger_mode="once", **PRIVATE,
    )  # fmt: skip
    connect_refusal(started, parts)


def _checked(
    server: Server, parts: Parts, answer: Answer, name: str, session: str, display: Display
) -> Iterator[Updates]:
    runs: Runs = server.runs
    run = runs.begin(session)
    try:
        yield {parts.status: markup.status("Waiting for the model …", "busy"), **running(parts, True)}
        for step in checking.check(answer, name, server.catalogue, run):
            told = markup.status(step.message, "done") if step.done else None
            updates = {parts.status: told or markup.status(step.message, "busy", step.fraction)}
            if step.done:
                updates |= {parts.answer: step.answer, parts.gallery: markup.gallery(step.answer, display)}
            yield updates | running(parts, not step.done)
    except attrib.AttribError as error:
        yield ended(parts, answer, display, str(error))
    except Exception:
        log.exception("a check failed")
        yield ended(parts, answer, display, UNEXPECTED)
    finally:
        runs.end(session, run)
