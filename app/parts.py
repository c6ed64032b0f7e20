"""The components that the tabs have in common, by name, and how they are drawn.

`prefix` tells the elements of the tabs apart on the page: "at" for images, "tx" for texts.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

import attrib
from app import drawing, markup, offers

SIDE = "at-side"  # a column that stays in sight beside a long gallery, see assets/app.js

# Events that take a photo get the values as the page sent them: attrib decodes the file, within its limits, and says
# what is wrong with it. gradio would open it first, and answer "Error" to what is not an image.
RAW: dict[str, Any] = {"preprocess": False}


@dataclass
class Parts:
    """The components of a tab, by name, and the controls of each method.

    kind: "image" or "text". shown: the names of the display's components; asked: those of the question, before the
    methods' settings.
    """

    kind: str
    shown: tuple[str, ...]
    asked: tuple[str, ...]
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
        return [self.named[name] for name in self.shown]

    @property
    def question(self) -> list[Any]:
        return [*(self.named[name] for name in self.asked), *self.flat]

    @property
    def flat(self) -> list[Any]:
        return [component for components in self.settings.values() for component in components]


def draw_methods(parts: Parts, prefix: str, hint: str) -> None:
    n = parts.named
    draw_choice(parts, prefix, offers.preselected(parts.kind))
    with gr.Row():
        n["explain"] = gr.Button("Explain", variant="primary", elem_id=f"{prefix}-explain", scale=3)
        n["cancel"] = gr.Button("Cancel", variant="stop", elem_id=f"{prefix}-cancel", interactive=False, scale=1)
    n["status"] = gr.HTML(markup.status(hint), elem_id=f"{prefix}-status")


def draw_choice(parts: Parts, prefix: str, chosen: list[str]) -> None:
    """The methods for a kind of input, of which `chosen` are, and their settings."""
    n, kind = parts.named, parts.kind
    titles = offers.method_titles(kind)
    n["methods"] = gr.CheckboxGroup(
        [(title, name) for name, title in titles.items()], value=chosen, label="Methods", elem_id=f"{prefix}-methods"
    )
    with gr.Accordion("Settings of the chosen methods", open=False, elem_id=f"{prefix}-settings") as box:
        for name, title in titles.items():
            with gr.Accordion(title, open=False, visible=name in chosen) as parts.groups[name]:
                gr.Markdown(html.escape(_about(attrib.METHODS[name].card)))
                with gr.Row():
                    parts.settings[name] = drawing.draw(offers.controls_of(kind, name))
    n["settings_box"] = box


def _about(card: Any) -> str:
    return f"{card.idea} Cost: {card.cost} (F: a forward pass, B: a backward pass)."


def draw_keep(parts: Parts, prefix: str, link: str) -> None:
    """Downloads and the link; `link` says what it holds."""
    n = parts.named
    with gr.Row(visible=False, elem_id=f"{prefix}-keep") as keep:
        n["zip"] = gr.Button("Download everything (zip)", elem_id=f"{prefix}-zip", size="md")
        n["html"] = gr.Button("Download the page (HTML)", elem_id=f"{prefix}-html", size="md")
        n["share"] = gr.Button("Link to these settings", elem_id=f"{prefix}-share", size="md")
    n["keep"], n["file"] = keep, gr.File(visible=False)
    n["query"] = gr.Textbox(visible=False)
    n["link"] = gr.Textbox(label=link, visible=False, interactive=False, buttons=["copy"], elem_id=f"{prefix}-link")


def listed(label: str, choices: list[Any], value: Any, name: str) -> gr.Dropdown:
    return gr.Dropdown(choices, value=value, label=label, elem_id=name, min_width=200, filterable=False)
