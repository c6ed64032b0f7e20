"""The components of the image tab, by name, and how they are drawn."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app import displays, markup
from app.catalogue import Catalogue
from app.displays import VIEWS
from app.model_choice import draw_model
from app.parts import Parts, draw_keep, listed
from app.questions import VERSUS
from app.scripts import ACT, CHOOSE
from attrib.render import HOW, PALETTES

SHOWN = ("opacity", "palette", "how", "percentile", "view", "blur")
ASKED = ("photo", "model", "methods", "target", "versus", "versus_by")


def draw_photo(parts: Parts, catalogue: Catalogue) -> None:
    n = parts.named
    n["photo"] = photo_input("Photo: drop, paste or choose", height=300, elem_id="at-photo")
    with gr.Group(elem_id="at-examples-group"):
        n["examples"] = gr.HTML(markup.examples(), js_on_load=CHOOSE, elem_id="at-examples")
    draw_model(parts, catalogue, "at")


def draw_target(parts: Parts, catalogue: Catalogue) -> None:
    n = parts.named
    n["predictions"] = gr.HTML(markup.bars([], None), js_on_load=CHOOSE, elem_id="at-predictions")
    n["predicted"] = gr.State([])
    n["target"] = gr.Dropdown(
        [], label="Target: which class shall be explained?", info="Click a prediction, or search among all classes.",
        elem_id="at-target",
    )  # fmt: skip
    with gr.Accordion("Compare with a second class", open=False, elem_id="at-compare") as n["compare_box"]:
        n["versus"] = gr.Dropdown(
            [("nothing", -1)], value=-1, label="Why the target and not …", elem_id="at-versus",
            info="Every map becomes a signed difference: what speaks for the target, and what for this class.",
        )  # fmt: skip
        n["versus_by"] = gr.Radio(
            [(text, key) for key, text in VERSUS.items()], value="logits", label="How", elem_id="at-versus-by"
        )


def draw_display(parts: Parts) -> None:
    n = parts.named
    usual = displays.USUAL
    with gr.Accordion("Display: changes nothing that was computed", visible=False, elem_id="at-display") as box:
        with gr.Row():
            n["opacity"] = _slider("Opacity", 0, 1, usual.opacity, 0.05, "at-opacity")
            n["blur"] = _slider("Smoothing (pixels)", 0, 8, usual.blur, 0.5, "at-blur")
            n["percentile"] = _slider("Saturate at percentile", 90, 100, usual.percentile, 0.1, "at-clip")
        n["how"] = listed("Colour scale", [(text.capitalize(), key) for key, text in HOW.items()], usual.how, "at-how")
        n["palette"] = listed("Colours", list(PALETTES), usual.palette, "at-palette")
        n["view"] = gr.Radio(VIEWS, value=VIEWS[0], label="Show", elem_id="at-view")
    n["display_box"] = box


def draw_results(parts: Parts) -> None:
    n = parts.named
    n["answer"] = gr.State(None, time_to_live=3600)
    n["gallery"] = gr.HTML("", js_on_load=ACT, elem_id="at-gallery")
    n["slider"] = gr.ImageSlider(
        label="Pullback: before and after", visible=False, interactive=False,
        elem_id="at-slider", max_height=420, buttons=["fullscreen"],
    )  # fmt: skip
    draw_keep(parts, "at", "Link (an uploaded photo is not part of it)")


def _slider(label: str, low: float, high: float, value: float, step: float, name: str) -> gr.Slider:
    return gr.Slider(low, high, value, step=step, label=label, elem_id=name, min_width=140)


def photo_input(label: str, **options: Any) -> gr.Image:
    """An image input for events with preprocess=False (see RAW): gradio still checks where the file lies."""
    sources = ["upload", "clipboard"]
    return gr.Image(type="filepath", image_mode=None, sources=sources, label=label, buttons=[], **options)


def path_of(payload: Any) -> str:
    """The file of a photo input; "" where there is none."""
    return str(payload.get("path") or "") if isinstance(payload, dict) else ""
