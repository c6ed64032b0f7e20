"""From a photo and a model to predictions, of which one is the target."""

from __future__ import annotations

from typing import Any

import gradio as gr

import attrib
from app import markup, offers, predictions, previews
from app.catalogue import Catalogue
from app.fetching import how_to_get
from app.image_parts import path_of
from app.model_choice import connect_model
from app.parts import RAW, Parts
from app.running import PRIVATE, UNCHANGED, Updates, guarded
from app.server import Server

BEGIN = "Choose a photo to begin."
CHOOSE_NEXT = "Choose a target and methods, then press Explain."
NOTHING = ("nothing", -1)
NO_PREDICTIONS = markup.bars([], None)


def connect_photo(server: Server, parts: Parts) -> None:
    shown, inputs = shown_by(parts), [parts.photo, parts.model, parts.target, parts.predictions]

    def predicted(payload: Any, model: str, target: Any, before: str) -> Updates:
        updates = predicted_by(parts, server.catalogue, path_of(payload), model)
        if before == NO_PREDICTIONS and isinstance(target, int):  # asked for before there was a photo, as by a link
            aim(parts, updates, target)
        if updates[parts.predicted]:
            updates |= _previewed(parts, path_of(payload), server.folder)
        return updates

    predict = guarded(predicted, parts.predictions)
    # the browser may tell of a photo's removal a moment before the photo is gone: it is asked for the photo afterwards
    parts.photo.input(None, js="() => {}", **PRIVATE).then(predict, inputs, shown, **RAW, **PRIVATE)
    connect_model(server, parts, predict, inputs, shown, **RAW)

    def emptied(payload: Any, *values: Any) -> Updates:
        return predict(payload, *values) if markup.BARS in values[-1] and not path_of(payload) else UNCHANGED

    # an upload that is too large takes the photo before it away, and says so by this event alone
    parts.photo.change(emptied, inputs, shown, **RAW, **PRIVATE)

    def take_example(event: gr.EventData) -> Any:
        return list(offers.example_photos().values())[int(event.index)]

    taken = parts.examples.click(take_example, None, parts.photo, **PRIVATE)
    taken.then(predict, inputs, shown, **RAW, **PRIVATE)

    def choose(event: gr.EventData, found: list[dict[str, Any]]) -> Any:
        return int(event.index), markup.bars(found, int(event.index))

    parts.predictions.click(choose, parts.predicted, [parts.target, parts.predictions], **PRIVATE)
    parts.target.input(markup.bars, [parts.predicted, parts.target], parts.predictions, **PRIVATE)


def shown_by(parts: Parts) -> list[Any]:
    """The components that change with the photo and the model."""
    return [parts.photo, parts.predicted, parts.predictions, parts.target, parts.versus, parts.status, parts.fetch]


def _previewed(parts: Parts, photo: str, folder: str) -> Updates:
    drawable = previews.drawable(photo, folder)
    if drawable is None:
        return {}
    path, notes = drawable
    return {parts.photo: path, parts.status: markup.status(" ".join((*notes, CHOOSE_NEXT)))}


def aim(parts: Parts, updates: Updates, target: int) -> None:
    """Let updates with predictions have this target instead of the most probable one; without any they stay."""
    if updates[parts.predicted]:
        updates[parts.predictions] = markup.bars(updates[parts.predicted], target)
        updates[parts.target] = gr.update(choices=updates[parts.target]["choices"], value=target)


def predicted_by(parts: Parts, catalogue: Catalogue, photo: str, model: str) -> Updates:
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
            return updates | {
                parts.predictions: NO_PREDICTIONS,
                parts.target: gr.update(choices=classes, value=None),
            }
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
        parts.status: markup.status(CHOOSE_NEXT),
    }
