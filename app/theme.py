"""How the app looks. System fonts only: the page asks no other server for anything."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr

import attrib.render
from attrib.models.assets import asset

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_CONDITIONAL = re.compile(r"@(?:container|media|supports)[^{]*\{(?:[^{}]*\{[^{}]*\})*\s*\}")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    base = gr.themes.Soft(primary_hue="blue", neutral_hue="slate", font=_FONT, font_mono=_MONO)
    # the theme's own text colours have too little contrast on some of its backgrounds
    return base.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_600",
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
        block_title_text_color="*primary_800",
        block_label_text_color="*primary_800",
        block_title_text_color_dark="*primary_100",
        block_label_text_color_dark="*primary_100",
        button_primary_background_fill_hover_dark="*primary_600",
        block_title_background_fill_dark="*primary_800",
        block_label_background_fill_dark="*primary_800",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_300",
        input_border_width="1px",
        input_border_color="*neutral_400",
        input_border_color_dark="*neutral_500",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def words() -> gr.I18n:
    """Words that gradio speaks to a screen reader and has forgotten: it says "common.complete" instead."""
    return gr.I18n(en={"common.complete": "Finished"})


def script() -> str:
    """A function that the page calls once."""
    return asset("app.js").read_text(encoding="utf-8")


def css() -> str:
    """The app's own rules after those of the cards, which a saved page has too."""
    cards = Path(attrib.render.__file__).parent / "templates" / "style.css"
    own = (asset(name).read_text(encoding="utf-8") for name in ("app.css", "patching.css"))
    return cards.read_text(encoding="utf-8") + "".join(own)


def head() -> str:
    """The rules with conditions, which gradio's own reading of the css above leaves out or cuts at their commas."""
    conditional = "".join(_CONDITIONAL.findall(css()))
    return f"<style>.gradio-container.gradio-container.gradio-container .contain{{{conditional}}}</style>"
