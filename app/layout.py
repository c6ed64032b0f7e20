"""The page: a header and one tab for each kind of input."""

from __future__ import annotations

import gradio as gr

from app import api, image_tab
from app.handlers import Catalogue
from app.running import Limits
from app.runs import Runs
from app.settings import Settings

TITLE = "attrib: why did the network see that?"


def build(settings: Settings, folder: str) -> gr.Blocks:
    """The whole app; `folder` is where files to download are written."""
    catalogue, runs = Catalogue(settings.models), Runs(settings.timeout)
    limits = Limits(folder, settings.concurrency)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(
            "# attrib\n"
            "Drop in a photo, see what a real network takes it for, and see *why*, by many methods side by side.",
            elem_id="at-header",
        )
        with gr.Tabs(), gr.Tab("Image", id="image"):
            image_tab.build(page, catalogue, runs, limits)
        api.add(catalogue, runs, limits)
        page.queue(max_size=settings.queue, default_concurrency_limit=settings.concurrency + 3, api_open=False)
    return page
