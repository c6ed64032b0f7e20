"""A program that hangs up stops what it has asked for: gradio tells of a closed tab, not of a plain request's end."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from app.runs import Runs

ANSWERS = "/gradio_api/call/"


class Leaving:
    """ASGI middleware: when the stream of an answer ends, whole or broken off, so does the work for it."""

    def __init__(self, app: ASGIApp, runs: Runs) -> None:
        self._app, self._runs = app, runs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] == "http" and scope["method"] == "GET" and ANSWERS in scope["path"]:
                # call/NAME/EVENT; the event names the session, too, unless the program has named one
                self._runs.cancel(scope["path"].rstrip("/").rpartition("/")[2])
