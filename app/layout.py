"""The page: a header, one tab for each kind of input, and the endpoints for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from app import api, image_api, image_tab, patching_api, patching_tab, reports_api, reports_tab, text_api, text_tab
from app.busy import bound
from app.catalogue import Catalogue
from app.closed import Page
from app.report_folder import ReportFolder
from app.report_jobs import Jobs
from app.running import sessions_of
from app.runs import Runs
from app.server import Server
from app.settings import Settings
from attrib.models import SOURCES, models

TITLE = "attrib: why did the network see that?"
_SAYS = {
    ("image", "text"): "Drop in a photo or paste a text, see what a real network makes of it, and see *why*, by many "
    "methods side by side.",
    ("image",): "Drop in a photo, see what a real network takes it for, and see *why*, by many methods side by side.",
    ("text",): "Paste a text, see what a real network makes of it, and see *why*, by many methods side by side.",
}


@dataclass(frozen=True)
class Tab:
    """name: in links, `?tab=name`. kind: of the models it needs, or "reports": a folder for them.

    build: draws it. endpoints: those for programs.
    """

    name: str
    title: str
    kind: str
    build: Callable[[Server], None]
    endpoints: Callable[[Server], None]


TABS = (
    Tab("image", "Image", "image", image_tab.build, image_api.add),
    Tab("text", "Text", "text", text_tab.build, text_api.add),
    Tab("patching", "Patching", "text", patching_tab.build, patching_api.add),
    Tab("reports", "Reports", "reports", reports_tab.build, reports_api.add),
)


def build(settings: Settings, folder: str, runs: Runs, reports: ReportFolder | None = None) -> gr.Blocks:
    """The whole app. folder: where files to download are written; reports: where those live, None: there are none."""
    catalogue = Catalogue(settings.models or usual_models(settings))
    kinds = tuple(kind for kind in ("image", "text") if catalogue.of(kind))
    jobs = None if reports is None else Jobs(reports, catalogue, settings.concurrency)
    shown = [tab for tab in TABS if tab.kind in kinds or (tab.kind == "reports" and jobs is not None)]
    with Page(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# attrib\n{_SAYS[kinds]}", elem_id="at-header")
        with gr.Tabs() as tabs:
            server = Server(page, tabs, catalogue, runs, folder, settings.concurrency, jobs)
            for tab in shown:
                with gr.Tab(tab.title, id=tab.name):
                    tab.build(server)
        api.add_lists(server)
        for tab in shown:
            tab.endpoints(server)
        page.unload(_stop_when_closed(runs))
        page.queue(default_concurrency_limit=settings.concurrency + 3, api_open=False)
    bound(page, settings.queue)
    return page


def usual_models(settings: Settings) -> tuple[str, ...]:
    """Strangers may make the server load what it knows; who sits at it may load anything."""
    return (*models(), *(f"{prefix}:*" for prefix in SOURCES if settings.is_local))


def _stop_when_closed(runs: Runs) -> Callable[..., None]:
    """A tab of the browser that is closed stops its run."""

    def stop(request: gr.Request) -> None:
        for session in sessions_of(request):
            runs.cancel(session)

    return stop
