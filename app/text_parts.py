"""The components of the text tab, by name, and how they are drawn."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app import markup
from app.catalogue import Catalogue
from app.displays import TEXT_SCALES, USUAL_TEXT
from app.model_choice import draw_model
from app.parts import Parts, listed
from app.questions import MOST_NEW
from app.scripts import CHOOSE
from attrib.render import PALETTES

SHOWN = ("part", "whole_words", "how", "palette")
ASKED = ("text", "model", "methods", "target", "versus", "new_tokens", "continuation")
NOTHING = ("nothing", -1)
EMPTY = "The most probable classes, or the ten likeliest next tokens, will be here."
BEGIN = "Write or paste a text, or take an example."


def draw_text(parts: Parts, catalogue: Catalogue) -> None:
    n = parts.named
    n["text"] = gr.Textbox(
        label="Text: write or paste", lines=4, max_lines=14, elem_id="tx-text", placeholder="Not bad at all …"
    )
    with gr.Accordion("Examples", open=True, elem_id="tx-examples-box"):
        n["examples"] = gr.HTML(markup.example_texts(), js_on_load=CHOOSE, elem_id="tx-examples")
    draw_model(parts, catalogue, "tx")


def draw_target(parts: Parts) -> None:
    n = parts.named
    n["predictions"] = gr.HTML(markup.bars([], None, EMPTY), js_on_load=CHOOSE, elem_id="tx-predictions")
    n["predicted"], n["predicted_text"] = gr.State([]), gr.State(None)  # and the text that they are of
    n["target"] = gr.Dropdown(
        [], label="Target: what shall be explained?", elem_id="tx-target", allow_custom_value=True,
        info="Click a prediction, or write a class or a token of the model.",
    )  # fmt: skip
    n["versus"] = gr.Dropdown(
        [NOTHING], value=-1, label="Why this rather than …", elem_id="tx-versus", allow_custom_value=True,
        info="The colours become signed differences: for the target, or for this.",
    )  # fmt: skip


def draw_continuation(parts: Parts) -> None:
    n = parts.named
    with gr.Accordion("Continuation", open=False, visible=False, elem_id="tx-continue") as n["continue_box"]:
        n["new_tokens"] = gr.Slider(
            0, MOST_NEW, 0, step=1, label="Generated tokens to explain", elem_id="tx-new",
            info="0: only the target above. Else each token that the model writes is explained by all before it.",
        )  # fmt: skip
        n["continuation"] = gr.Textbox(
            "", label="Continuation", elem_id="tx-continuation", max_lines=3, max_length=2000,
            placeholder="empty: what the model writes; or yours, with its leading space",
        )  # fmt: skip


def draw_display(parts: Parts) -> None:
    n = parts.named
    with gr.Group(visible=False, elem_id="tx-display") as n["display_box"]:
        with gr.Row():
            n["part"] = gr.Radio(
                [("Both", "both"), ("Content", "content"), ("Position", "position")], value=USUAL_TEXT.part,
                label="Relevance of", elem_id="tx-part", min_width=220,
            )  # fmt: skip
            n["whole_words"] = gr.Checkbox(
                USUAL_TEXT.whole_words, label="Merge pieces into words", elem_id="tx-words", min_width=160
            )
        with gr.Row():
            n["how"] = listed(
                "Colour scale", [(text, key) for key, text in TEXT_SCALES.items()], USUAL_TEXT.how, "tx-how"
            )
            n["palette"] = listed("Colours", list(PALETTES), USUAL_TEXT.palette, "tx-palette")


def name_of(value: Any) -> int | str | None:
    """A choice of a list is an index; what was written is a label or token, its spaces included."""
    if value is None or value == "" or (isinstance(value, int) and value < 0) or value == NOTHING[0]:
        return None
    return value if isinstance(value, int) else str(value)
