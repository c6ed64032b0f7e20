"""The choice of a model, and the button that gets it where it is not here yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

import attrib
from app import fetching, markup
from app.catalogue import Catalogue
from app.parts import Parts
from app.running import PRIVATE, UNCHANGED, Updates, sessions_of
from app.server import Server


def draw_model(parts: Parts, catalogue: Catalogue, prefix: str, preferred: str = "") -> None:
    """A list of the models for this tab; names may be typed where the server allows it."""
    names, patterns = list(catalogue.of(parts.kind)), catalogue.open_to(parts.kind)
    first = preferred if preferred in names else names[0]
    parts.named["model"] = gr.Dropdown(
        names, value=first, label="Model", elem_id=f"{prefix}-model", filterable=bool(patterns),
        allow_custom_value=bool(patterns), visible=len(names) > 1 or bool(patterns), info=_may_type(patterns),
    )  # fmt: skip
    parts.named["fetch"] = gr.Button(fetching.BUTTON, elem_id=f"{prefix}-fetch", visible=catalogue.missing(first))


def connect_model(
    server: Server, parts: Parts, predict: Callable[..., Updates], inputs: list[Any], shown: list[Any], **how: Any
) -> None:
    """Another model predicts anew, and so does one that was fetched. predict(*inputs): updates of `shown`."""
    parts.model.input(predict, inputs, shown, trigger_mode="always_last", **how, **PRIVATE)
    said = [parts.predictions, parts.fetch, parts.cancel]

    def fetch(request: gr.Request, name: str) -> Iterator[Updates]:
        _, session = sessions_of(request)
        run = server.runs.begin(session)
        ended = {parts.fetch: gr.update(interactive=True), parts.cancel: gr.update(interactive=False)}
        try:
            yield {parts.fetch: gr.update(interactive=False), parts.cancel: gr.update(interactive=True)}
            for fraction, message in fetching.fetch(server.catalogue, name, run):
                yield {parts.predictions: markup.status(message, "busy", fraction)}
            yield ended
        except attrib.AttribError as error:
            yield {**ended, parts.predictions: markup.status(str(error), "error")}
        finally:
            server.runs.end(session, run)

    def after(*values: Any) -> Updates:
        name = values[inputs.index(parts.model)]
        return UNCHANGED if server.catalogue.missing(name) else predict(*values)  # after a failure its message stays

    event = parts.fetch.click(fetch, parts.model, said, trigger_mode="once", **PRIVATE)
    event.then(after, inputs, shown, **how, **PRIVATE)


def _may_type(patterns: Sequence[str]) -> str | None:
    if not patterns:
        return None
    places = (pattern.replace("*", "NAME-OR-FOLDER" if pattern == "hf:*" else "NAME") for pattern in patterns)
    return f"Or type {', '.join(places)}."
