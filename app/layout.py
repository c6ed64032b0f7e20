"""The page: a header and one tab for each kind of input."""

from __future__ import annotations

import gradio as gr

from app import api, image_tab, text_api, text_tab
from app.handlers import Catalogue
from app.running import Limits
from app.runs import Runs
from app.settings import Settings

TITLE = "attrib: why did the network see that?"
_SAYS = {
    ("image", "text"): "Drop in a photo or paste a text, see what a real network makes of it, and see *why*, by many "
    "methods side by side.",
    ("image",): "Drop in a photo, see what a real network takes it for, and see *why*, by many methods side by side.",
    ("text",): "Paste a text, see what a real network makes of it, and see *why*, by many methods side by side.",
}


def build(settings: Settings, folder: str) -> gr.Blocks:
    """The whole app; `folder` is where files to download are written."""
    catalogue, runs = Catalogue(settings.models), Runs(settings.timeout)
    limits = Limits(folder, settings.concurrency)
    kinds = tuple(kind for kind in ("image", "text") if catalogue.of(kind))
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# attrib\n{_SAYS[kinds]}", elem_id="at-header")
        with gr.Tabs() as tabs:
            if "image" in kinds:
                with gr.Tab("Image", id="image"):
                    image_tab.build(page, catalogue, runs, limits)
            if "text" in kinds:
                with gr.Tab("Text", id="text"):
                    text_tab.build(page, tabs, catalogue, runs, limits)
        api.add(catalogue, runs, limits)
        if "text" in kinds:
            text_api.add(catalogue, runs, limits)
        page.unload(image_tab.stop_when_closed(runs))
        page.queue(max_size=settings.queue, default_concurrency_limit=settings.concurrency + 3, api_open=False)
    return page
