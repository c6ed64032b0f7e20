"""The components of the image tab, by name, and how they are drawn."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

import attrib
from app import controls, handlers, markup
from app.handlers import VERSUS, VIEWS, Catalogue
from attrib.render import HOW, PALETTES

_CHOOSE = """element.addEventListener('click', event => {
  const button = event.target.closest('button[data-index]');
  if (button) trigger('click', {index: Number(button.dataset.index)});
});"""


# Events that take a photo get the values as the page sent them: attrib decodes the file, within its limits, and says
# what is wrong with it. gradio would open it first, and answer "Error" to what is not an image.
RAW: dict[str, Any] = {"preprocess": False}


@dataclass
class Parts:
    """The components of the tab, by name, and the controls of each method."""

    named: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, list[Any]] = field(default_factory=dict)  # method -> its controls' components
    groups: dict[str, Any] = field(default_factory=dict)  # method -> the group around them

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["named"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def display(self) -> list[Any]:
        return [self.opacity, self.palette, self.how, self.percentile, self.view, self.blur]

    @property
    def question(self) -> list[Any]:
        flat = [component for components in self.settings.values() for component in components]
        return [self.photo, self.model, self.methods, self.target, self.versus, self.versus_by, *flat]


def draw_photo(parts: Parts, catalogue: Catalogue) -> None:
    n = parts.named
    n["photo"] = photo_input("Photo: drop, paste or choose", height=300, elem_id="at-photo")
    with gr.Group(elem_id="at-examples-group"):
        n["examples"] = gr.HTML(markup.examples(), js_on_load=_CHOOSE, elem_id="at-examples")
    n["model"] = gr.Dropdown(
        list(catalogue.names), value=catalogue.names[0], label="Model", elem_id="at-model", filterable=False,
        visible=len(catalogue.names) > 1,
    )  # fmt: skip


def draw_target(parts: Parts, catalogue: Catalogue) -> None:
    n = parts.named
    n["predictions"] = gr.HTML(markup.bars([], None), js_on_load=_CHOOSE, elem_id="at-predictions")
    n["predicted"] = gr.State([])
    n["target"] = gr.Dropdown(
        [], label="Target: which class shall be explained?", info="Click a prediction, or search among all classes.",
        elem_id="at-target",
    )  # fmt: skip
    with gr.Accordion("Compare with a second class", open=False, elem_id="at-compare") as n["compare_box"]:
        n["versus"] = gr.Dropdown(
            [("nothing", -1)], value=-1, label="Why the target and not …", elem_id="at-versus",
            info="The maps become signed differences: for the target, or for this class.",
        )  # fmt: skip
        n["versus_by"] = gr.Radio(
            [(text, key) for key, text in VERSUS.items()], value="logits", label="How", elem_id="at-versus-by"
        )


def draw_display(parts: Parts) -> None:
    n = parts.named
    usual = handlers.USUAL
    with gr.Accordion("Display: changes nothing that was computed", visible=False, elem_id="at-display") as box:
        with gr.Row():
            n["opacity"] = _slider("Opacity", 0, 1, usual.opacity, 0.05, "at-opacity")
            n["blur"] = _slider("Smoothing (pixels)", 0, 8, usual.blur, 0.5, "at-blur")
            n["percentile"] = _slider("Saturate at percentile", 90, 100, usual.percentile, 0.1, "at-clip")
        with gr.Row():
            n["how"] = _list(
                "Colour scale", [(text.capitalize(), key) for key, text in HOW.items()], usual.how, "at-how"
            )
            n["palette"] = _list("Colours", list(PALETTES), usual.palette, "at-palette")
            n["view"] = gr.Radio(VIEWS, value=VIEWS[0], label="Show", elem_id="at-view", min_width=140)
    n["display_box"] = box


def draw_methods(parts: Parts) -> None:
    n = parts.named
    titles = handlers.method_titles()
    chosen = handlers.preselected()
    n["methods"] = gr.CheckboxGroup(
        [(title, name) for name, title in titles.items()], value=chosen, label="Methods", elem_id="at-methods"
    )
    with gr.Accordion("Settings of the chosen methods", open=False, elem_id="at-settings") as n["settings_box"]:
        for name, title in titles.items():
            with gr.Accordion(title, open=False, visible=name in chosen) as parts.groups[name]:
                gr.Markdown(html.escape(f"{attrib.METHODS[name].card.idea} Cost: {attrib.METHODS[name].card.cost}."))
                with gr.Row():
                    parts.settings[name] = controls.draw(attrib.METHODS[name])
    with gr.Row():
        n["explain"] = gr.Button("Explain", variant="primary", elem_id="at-explain", scale=3)
        n["cancel"] = gr.Button("Cancel", variant="stop", elem_id="at-cancel", interactive=False, scale=1)
    n["status"] = gr.HTML(markup.status("Choose a photo to begin."), elem_id="at-status")


def draw_results(parts: Parts) -> None:
    n = parts.named
    n["answer"] = gr.State(None, time_to_live=3600)
    n["gallery"] = gr.HTML("", elem_id="at-gallery")
    n["slider"] = gr.ImageSlider(
        label="Excitation pullback: the photo before and after the ascent", visible=False, interactive=False,
        elem_id="at-slider", max_height=420, buttons=["fullscreen"],
    )  # fmt: skip
    with gr.Row(visible=False) as keep:
        n["prepare"] = gr.Button("Prepare files to download", elem_id="at-prepare", size="md")
        n["share"] = gr.Button("Link to these settings", elem_id="at-share", size="md")
    n["keep"] = keep
    n["files"] = gr.File(label="Files", file_count="multiple", interactive=False, visible=False, elem_id="at-files")
    n["query"] = gr.Textbox(visible=False)
    n["link"] = gr.Textbox(
        label="Link (an uploaded photo is not part of it)", visible=False, interactive=False, buttons=["copy"],
        elem_id="at-link",
    )  # fmt: skip


def _slider(label: str, low: float, high: float, value: float, step: float, name: str) -> gr.Slider:
    return gr.Slider(low, high, value, step=step, label=label, elem_id=name, min_width=140)


def _list(label: str, choices: list[Any], value: Any, name: str) -> gr.Dropdown:
    return gr.Dropdown(choices, value=value, label=label, elem_id=name, min_width=140, filterable=False)


def photo_input(label: str, **options: Any) -> gr.Image:
    """An image input for events with preprocess=False (see RAW): gradio still checks where the file lies."""
    sources = ["upload", "clipboard"]
    return gr.Image(type="filepath", image_mode=None, sources=sources, label=label, buttons=[], **options)


def path_of(payload: Any) -> str:
    """The file of a photo input; "" where there is none."""
    return str(payload.get("path") or "") if isinstance(payload, dict) else ""
