"""Start the server, print its address, clean up at the end."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from typing import Any

from starlette.middleware import Middleware

from app.settings import Settings, SettingsError


def main() -> None:
    """Serve until interrupted. Exits with 2 when the environment makes no sense, 1 when it cannot listen."""
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.stderr.write(f"attrib: {error}\n")
        sys.exit(2)
    signal.signal(signal.SIGTERM, _end)  # as a container stops it: clean up all the same
    try:
        serve(settings)
    except OSError as error:
        taken = "empty port" in str(error)  # gradio's words go on with a variable of its own
        reason = "another program is there, or that is no address of this machine; set ATTRIB_PORT or ATTRIB_HOST"
        sys.stderr.write(f"attrib: cannot listen on {settings.host}:{settings.port}: {reason if taken else error}\n")
        sys.exit(1)


def serve(settings: Settings, *, wait: bool = True) -> Any:
    """Start the server with gradio's unsafe defaults off; returns the page (stop it with `.close()`)."""
    folder = upload_folder(settings)
    # after upload_folder: gradio reads its folder while it is imported
    from app import closed, layout, logins, offers, report_folder, report_routes, theme
    from app.bodies import Bounded, Limits
    from app.leaving import Leaving
    from app.runs import Runs

    reports = report_folder.configured(settings)
    runs = Runs(settings.timeout)
    page = layout.build(settings, folder, runs, reports)
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        # wherever the environment is: gradio hands out nothing else from outside the folder that it was started in
        allowed_paths=list(offers.example_photos().values()),
        auth=logins.checker(settings.auth) if settings.auth else None,
        max_file_size=settings.max_upload * 2**20,
        state_session_capacity=settings.sessions,
        theme=theme.theme(),
        css=theme.css(),
        head=theme.head(),
        js=theme.script(),
        share=False,
        show_error=False,
        enable_monitoring=False,
        run_history=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
        app_kwargs={
            "openapi_url": None,
            "routes": [*closed.routes(), *(report_routes.routes(reports) if reports else [])],
            "middleware": [Middleware(Bounded, Limits.of(settings, folder)), Middleware(Leaving, runs)],
        },
        footer_links=[],
        i18n=theme.words(),
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
    )
    sys.stdout.write(f"attrib is at {page.local_url}\n")
    sys.stdout.flush()
    if wait:
        page.block_thread()
    return page


def _end(*_: object) -> None:
    """Leave once: `make app` is told by the terminal and by make, and a second word would interrupt the cleaning up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def upload_folder(settings: Settings) -> str:
    """The folder for uploads and files to download: private, and emptied when the process ends."""
    if settings.uploads is not None:
        os.makedirs(settings.uploads, mode=0o700, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="attrib-app-", dir=settings.uploads)
    os.environ["GRADIO_TEMP_DIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
