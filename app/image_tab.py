"""The image tab: photo, prediction, target, methods, gallery."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr

from app import displays
from app.check_buttons import connect_checks
from app.image_links import connect_link
from app.image_parts import ASKED, SHOWN, draw_display, draw_photo, draw_results, draw_target, path_of
from app.image_photo import BEGIN, connect_photo
from app.parts import SIDE, Parts, draw_methods
from app.questions import Ask
from app.running import Reading, connect_groups, connect_run, methods_of
from app.server import Server
from app.showing import connect_display, connect_downloads


def build(server: Server) -> None:
    """Draw the tab and connect its events; call it inside a gr.Tab."""
    parts, catalogue = Parts("image", SHOWN, ASKED), server.catalogue
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_classes=SIDE):
            draw_photo(parts, catalogue)
            draw_target(parts, catalogue)
            draw_display(parts)
        with gr.Column(scale=7, min_width=320):
            draw_methods(parts, "at", BEGIN)
            draw_results(parts)
    connect_photo(server, parts)
    connect_groups(parts)
    reading = Reading(partial(_ask, parts), displays.image_display)
    connect_run(server, parts, reading, parts.slider)
    connect_display(parts, reading)
    connect_downloads(server, parts, reading)
    connect_checks(server, parts, reading)
    connect_link(server, parts, reading)


def _ask(parts: Parts, values: Sequence[Any]) -> Ask:
    photo, model, chosen, target, versus, versus_by, *flat = values
    return Ask(
        path_of(photo),
        model,
        methods_of(parts, chosen, flat),
        target if target != "" else None,
        None if versus == -1 else versus,
        versus_by,
    )
