"""Named endpoints for programs: /predict_image, /explain_image."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app import offers, predictions
from app.api import clear, explained, heavy, methods_asked, name_asked, whole
from app.image_parts import path_of, photo_input
from app.parts import RAW
from app.questions import Ask
from app.server import Server
from attrib.render import Display


def add(server: Server) -> None:
    """Call it inside gr.Blocks. The components are never shown: they type and check what programs send."""
    catalogue = server.catalogue
    with gr.Row(visible=False):
        photo, trigger = photo_input("image"), gr.Button()
        model = gr.Textbox(catalogue.of("image")[0], label="model")
        target, versus = gr.Textbox("", label="target"), gr.Textbox("", label="versus")
        methods = gr.JSON(offers.preselected(), label="methods")
        settings = gr.JSON({}, label="settings")
        k = gr.Number(5, precision=0, minimum=1, maximum=1000, label="k")
        answer, files = gr.JSON(label="answer"), gr.File(file_count="multiple", label="files")

    def predict_image(photo: Any, model: str, k: Any) -> Any:
        return predictions.predict(catalogue, path_of(photo), model, whole("k", k, 1, 1000))

    async def explain_image(
        photo: Any, model: str, methods: Any, target: Any, versus: Any, settings: Any, request: gr.Request
    ) -> Any:
        ask = Ask(path_of(photo), model, methods_asked(methods, settings), name_asked(target), name_asked(versus))
        return await explained(server, ask, Display(), request)

    trigger.click(clear(predict_image), [photo, model, k], answer, api_name="predict_image", **RAW,
                  api_description="The k most probable classes of an image.")  # fmt: skip
    trigger.click(
        clear(explain_image), [photo, model, methods, target, versus, settings], [answer, files],
        api_name="explain_image", **heavy(server), **RAW,
        api_description="Explain an image. methods: list of names; target, versus: label or index as text, empty "
        "for the top prediction and for none; settings: {method: {setting: value}}. Returns numbers and provenance, "
        "and files: a zip, a page, and each method's PNG, safetensors and JSON.",
    )  # fmt: skip
