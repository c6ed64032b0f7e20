"""Named endpoints for programs: /predict_text, /explain_text, /explain_generation."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app import displays, offers, predictions
from app.api import clear, explained, heavy, methods_asked, name_asked, whole
from app.questions import MOST_NEW, Ask
from app.server import Server


def add(server: Server) -> None:
    """Call it inside gr.Blocks. The components are never shown: they type and check what programs send."""
    catalogue = server.catalogue
    with gr.Row(visible=False):
        text, trigger = gr.Textbox("", label="text"), gr.Button()
        model = gr.Textbox(catalogue.of("text")[0], label="model")
        target, versus = gr.Textbox("", label="target"), gr.Textbox("", label="versus")
        methods = gr.JSON(offers.preselected("text"), label="methods")
        settings = gr.JSON({}, label="settings")
        k = gr.Number(5, precision=0, label="k")  # `whole` says what is wrong with a number
        new_tokens = gr.Number(8, precision=0, label="new_tokens")
        continuation = gr.Textbox("", label="continuation")
        answer, files = gr.JSON(label="answer"), gr.File(file_count="multiple", label="files")

    def predict_text(text: str, model: str, k: Any) -> Any:
        return predictions.predict_text(catalogue, text or "", model, whole("k", k, 1, 1000))

    async def explain_text(
        text: str, model: str, methods: Any, target: Any, versus: Any, settings: Any, request: gr.Request
    ) -> Any:
        # a token's spaces belong to it: the name is not stripped
        chosen, first, second = methods_asked(methods, settings), name_asked(target, False), name_asked(versus, False)
        ask = Ask("", model, chosen, first, second, text=text or "")
        return await explained(server, ask, displays.USUAL_TEXT, request)

    async def explain_generation(
        text: str, model: str, methods: Any, new_tokens: Any, continuation: str, versus: Any, settings: Any,
        request: gr.Request,
    ) -> Any:  # fmt: skip
        ask = Ask("", model, methods_asked(methods, settings), None, name_asked(versus, False), text=text or "",
                  new_tokens=whole("new_tokens", new_tokens, 1, MOST_NEW), continuation=continuation or "")  # fmt: skip
        return await explained(server, ask, displays.USUAL_TEXT, request)

    trigger.click(clear(predict_text), [text, model, k], answer, api_name="predict_text",
                  api_description="The k most probable classes, or next tokens, of a text.")  # fmt: skip
    trigger.click(
        clear(explain_text), [text, model, methods, target, versus, settings], [answer, files],
        api_name="explain_text", **heavy(server),
        api_description="Explain a text. methods: list of names; target, versus: label, token (with its leading space) "
        "or index as text, empty for the top prediction and for none; settings: {method: {setting: value}}. Returns "
        "each token with its relevance, numbers and provenance, and files: a zip, a page, and each method's PNG, "
        "safetensors and JSON.",
    )  # fmt: skip
    trigger.click(
        clear(explain_generation), [text, model, methods, new_tokens, continuation, versus, settings], [answer, files],
        api_name="explain_generation", **heavy(server),
        api_description="Explain each token of a continuation by all before it. new_tokens: how many; continuation: "
        "the text to explain, empty for what the model writes; versus: a token to explain them against. Returns a row "
        "for each generated token, and files as /explain_text does.",
    )  # fmt: skip
