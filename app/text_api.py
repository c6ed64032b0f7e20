"""Named endpoints for programs: /predict_text, /explain_text."""

from __future__ import annotations

from typing import Any

import gradio as gr

import attrib
from app import downloads, handlers
from app.api import clear, document, methods_asked, name_asked
from app.handlers import Answer, Ask, Catalogue
from app.running import HEAVY, Limits
from app.runs import Runs


def add(catalogue: Catalogue, runs: Runs, limits: Limits) -> None:
    """Call it inside gr.Blocks. The components are never shown: they type and check what programs send."""
    with gr.Row(visible=False):
        text, trigger = gr.Textbox("", label="text"), gr.Button()
        model = gr.Textbox(catalogue.of("text")[0], label="model")
        target, versus = gr.Textbox("", label="target"), gr.Textbox("", label="versus")
        methods = gr.JSON(handlers.preselected("text"), label="methods")
        settings = gr.JSON({}, label="settings")
        k = gr.Number(5, precision=0, minimum=1, maximum=1000, label="k")
        answer, files = gr.JSON(label="answer"), gr.File(file_count="multiple", label="files")

    def predict_text(text: str, model: str, k: Any) -> Any:
        if not isinstance(k, (int, float)) or not 1 <= k <= 1000:
            raise attrib.InputError(f"k = {k!r}: give a whole number from 1 to 1000")
        return handlers.predict_text(catalogue, text or "", model, int(k))

    def explain_text(
        text: str, model: str, methods: Any, target: Any, versus: Any, settings: Any, request: gr.Request
    ) -> Any:
        session = f"api:{request.session_hash}"
        run = runs.begin(session)
        found = Answer()
        try:
            # a token's spaces belong to it: the name is not stripped
            ask = Ask("", model, methods_asked(methods, settings), name_asked(target, strip=False),
                      name_asked(versus, strip=False), text=text or "")  # fmt: skip
            for step in handlers.explain(ask, catalogue, run):
                found = step.answer
        finally:
            runs.end(session, run)
        return document(found), downloads.write(found, handlers.USUAL_TEXT, limits.folder) if found.results else []

    trigger.click(clear(predict_text), [text, model, k], answer, api_name="predict_text",
                  api_description="The k most probable classes, or next tokens, of a text.")  # fmt: skip
    trigger.click(
        clear(explain_text), [text, model, methods, target, versus, settings], [answer, files],
        api_name="explain_text", concurrency_id=HEAVY, concurrency_limit=limits.concurrency,
        api_description="Explain a text. methods: list of names; target, versus: label, token (with its leading space) "
        "or index as text, empty for the top prediction and for none; settings: {method: {setting: value}}. Returns "
        "each token with its relevance, numbers and provenance, and files: a zip, a page, and each method's PNG, "
        "safetensors and JSON.",
    )  # fmt: skip
