"""What every tab and endpoint is built on."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from app.catalogue import Catalogue
from app.report_jobs import Jobs
from app.runs import Runs


@dataclass(frozen=True)
class Server:
    """The page with its tabs, and what all visitors share.

    folder: where files to download are written. concurrency: explanations at the same time.
    jobs: the reports, None where there is no folder for them.
    """

    page: gr.Blocks
    tabs: gr.Tabs
    catalogue: Catalogue
    runs: Runs
    folder: str
    concurrency: int
    jobs: Jobs | None = None
