"""Controls as gradio components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.controls import Control


def draw(controls: Sequence[Control]) -> list[Any]:
    """One gradio component per control; call it inside a layout."""
    return [_DRAWN[control.kind](control) for control in controls]


def _choice(control: Control) -> Any:
    empty = [("automatic", "")] if control.optional or control.default is None else []
    choices = empty + [(choice, choice) for choice in control.choices]
    return gr.Dropdown(choices, value=control.shown, label=control.title, info=control.help)


def _switch_drawn(control: Control) -> Any:
    return gr.Checkbox(bool(control.default), label=control.title, info=control.help)


def _number(control: Control) -> Any:
    step = 1 if control.kind == "whole" else None
    bounded = control.low is not None and control.high is not None and control.default is not None
    if bounded and control.kind == "whole" and control.high - control.low <= 500:  # type: ignore[operator]
        return gr.Slider(control.low, control.high, control.default, step=1, label=control.title, info=control.help)
    return gr.Number(
        control.default, label=control.title, info=control.help, minimum=control.low, maximum=control.high,
        precision=0 if step else None, step=step or 0.01, placeholder="automatic" if control.default is None else None,
    )  # fmt: skip


def _text(control: Control) -> Any:
    empty = "automatic" if control.default is None else ""
    hint = "names, separated by commas" if control.kind == "list" else ""
    return gr.Textbox(
        control.shown, label=control.title, info=control.help, placeholder=empty or hint, max_lines=1, max_length=500
    )


_DRAWN: dict[str, Any] = {
    "choice": _choice, "switch": _switch_drawn, "whole": _number, "real": _number, "text": _text, "list": _text,
}  # fmt: skip
