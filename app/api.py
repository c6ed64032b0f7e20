"""Named endpoints for programs: /list_models, /list_methods, /predict_image, /explain_image."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

import attrib
from app import downloads, handlers
from app.handlers import Answer, Ask, Catalogue
from app.image_parts import path_of, photo_input
from app.parts import RAW
from app.running import HEAVY, Limits
from app.runs import Runs
from attrib.render import Display, has_parts, is_text
from attrib.render.tokens import part_of


def add(catalogue: Catalogue, runs: Runs, limits: Limits) -> None:
    """Call it inside gr.Blocks. The components are never shown: they type and check what programs send."""
    with gr.Row(visible=False):
        photo, trigger = photo_input("image"), gr.Button()
        model = gr.Textbox((catalogue.of("image") or catalogue.names)[0], label="model")
        target, versus = gr.Textbox("", label="target"), gr.Textbox("", label="versus")
        methods = gr.JSON(handlers.preselected(), label="methods")
        settings = gr.JSON({}, label="settings")
        k = gr.Number(5, precision=0, minimum=1, maximum=1000, label="k")
        answer, files = gr.JSON(label="answer"), gr.File(file_count="multiple", label="files")

    def predict_image(photo: Any, model: str, k: Any) -> Any:
        if not isinstance(k, (int, float)) or not 1 <= k <= 1000:
            raise attrib.InputError(f"k = {k!r}: give a whole number from 1 to 1000")
        return handlers.predict(catalogue, path_of(photo), model, int(k))

    def explain_image(
        photo: Any, model: str, methods: Any, target: Any, versus: Any, settings: Any, request: gr.Request
    ) -> Any:
        session = f"api:{request.session_hash}"
        run = runs.begin(session)
        found = Answer()
        try:
            ask = Ask(path_of(photo), model, methods_asked(methods, settings), name_asked(target), name_asked(versus))
            for step in handlers.explain(ask, catalogue, run):
                found = step.answer
        finally:
            runs.end(session, run)
        return document(found), downloads.write(found, Display(), limits.folder) if found.results else []

    trigger.click(clear(lambda: list(catalogue.names)), None, answer, api_name="list_models",
                  api_description="The models on offer.")  # fmt: skip
    trigger.click(clear(handlers.list_methods), None, answer, api_name="list_methods",
                  api_description="The methods with their cards and settings.")  # fmt: skip
    trigger.click(clear(predict_image), [photo, model, k], answer, api_name="predict_image", **RAW,
                  api_description="The k most probable classes of an image.")  # fmt: skip
    trigger.click(
        clear(explain_image), [photo, model, methods, target, versus, settings], [answer, files],
        api_name="explain_image", concurrency_id=HEAVY, concurrency_limit=limits.concurrency, **RAW,
        api_description="Explain an image. methods: list of names; target, versus: label or index as text, empty "
        "for the top prediction and for none; settings: {method: {setting: value}}. Returns numbers and provenance, "
        "and files: a zip, a page, and each method's PNG, safetensors and JSON.",
    )  # fmt: skip


def methods_asked(names: Any, settings: Any) -> tuple[tuple[str, Any], ...]:
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise attrib.InputError(f"methods: a list of names is needed, got {type(names).__name__}")
    if not isinstance(settings or {}, dict) or not all(isinstance(v, dict) for v in (settings or {}).values()):
        raise attrib.InputError("settings: an object {method: {setting: value}} is needed")
    return tuple((name, (settings or {}).get(name, {})) for name in dict.fromkeys(names))


def name_asked(given: Any, strip: bool = True) -> int | str | None:
    """A target as a program gives it: digits are an index, nothing is None."""
    text = str("" if given is None else given)
    text = text.strip() if strip else text
    return int(text) if text.isascii() and text.isdigit() else text or None


def document(answer: Answer) -> dict[str, Any]:
    """What a program may read of each result, short of the maps themselves, which are in the files."""
    return {"results": {name: _numbers(a) for name, a in answer.results.items()}, "failures": answer.failures}


def _numbers(a: attrib.Attribution) -> dict[str, Any]:
    return {
        "target": a.target[0],
        "score": float(a.score[0]),
        "delta": None if a.delta is None else float(a.delta[0]),
        "ledger": None if a.ledger is None else {name: float(amount[0]) for name, amount in a.ledger.items()},
        "coverage": None if a.coverage is None else str(a.coverage),
        "notes": list(a.notes),
        "signed": a.signed,
        "shape": list(a.values.shape),
        "settings": json.loads(json.dumps(a.provenance.settings)),
        "seconds": a.provenance.seconds,
        "weights_hash": a.provenance.weights_hash,
        **(_tokens(a) if is_text(a) else {}),
    }


def _tokens(a: attrib.Attribution) -> dict[str, Any]:
    """Each token with its relevance, its word, and what is content and position where they are known apart."""
    size = len(a.tokens(0))
    parts = {name: part_of(a, name)[0, :size].tolist() for name in ("content", "position")} if has_parts(a) else None
    words = None if a.words is None else list(a.words[0])
    return {"tokens": [list(pair) for pair in a.tokens(0)], "words": words, "parts": parts}


def clear(handler: Callable[..., Any]) -> Callable[..., Any]:
    """attrib's errors reach the client as one sentence."""

    @wraps(handler)
    def clear(*values: Any, **named: Any) -> Any:
        try:
            return handler(*values, **named)
        except attrib.AttribError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return clear
