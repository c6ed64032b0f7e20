"""How much a client may send: gradio bounds each file of an upload, and neither their sum nor any other body.

A refusal is 413 with one sentence, before the body is read where its length was announced, and otherwise (chunks) as
soon as it has grown too long. Uploads still stream to disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import places
from app.settings import Settings

UPLOAD = "/gradio_api/upload"
FRAMES = 2**20  # bytes of headers around the files of one upload
DRAINED, PATIENCE = 2**26, 10.0  # bytes and seconds that a refused client is heard out
KEPT = 4 * 2**30  # bytes of uploads and answers together; the oldest go by the hour


class Broken(MultiPartException):
    """A body that ends here: this is the one exception at which gradio removes the files that it had begun."""


@dataclass(frozen=True)
class Limits:
    """Bytes of one request's body: of uploads, and of anything else. folder: where uploads go."""

    upload: int
    other: int
    folder: Path

    @classmethod
    def of(cls, settings: Settings, folder: str) -> Limits:
        most = max(settings.max_upload, settings.report_upload if settings.reports_folder else 0)
        return cls(most * 2**20 + FRAMES, settings.max_upload * 2**20, Path(folder))


class Bounded:
    """ASGI middleware: no body beyond its limit, no upload where the folder is full, no half of one left behind."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        uploads = scope["path"].rstrip("/").endswith(UPLOAD)
        body = _Body(receive, send, self._limits.upload if uploads else self._limits.other, uploads)
        headers = {name.lower(): value for name, value in scope["headers"]}
        if _announced(headers) > body.limit:
            await body.refuse(scope, wait=headers.get(b"expect", b"").lower() != b"100-continue")
        elif uploads and await asyncio.to_thread(places.size, self._limits.folder) > KEPT:
            full = "The server keeps as many uploads as it can; try again in an hour."
            await PlainTextResponse(full, 503)(scope, receive, send)
        else:
            await self._passed(scope, body)

    async def _passed(self, scope: Scope, body: _Body) -> None:
        with suppress(Broken):
            await self._app(scope, body.heard, body.told)
        if body.too_long and not body.begun:
            await body.refuse(scope)


@dataclass
class _Body:
    """One request as it comes in, counted, and its answer."""

    receive: Receive
    send: Send
    limit: int
    uploads: bool
    taken: int = 0
    whole: bool = False  # the last piece is in
    begun: bool = False  # an answer is on its way

    @property
    def too_long(self) -> bool:
        return self.taken > self.limit

    async def heard(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request":
            self.taken += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
        if self.too_long:
            raise Broken("the request is too large")
        if self.uploads and not self.whole and message["type"] == "http.disconnect":
            raise Broken("the upload broke off")
        return message

    async def told(self, message: Message) -> None:
        if not self.too_long or self.begun:
            self.begun = True
            await self.send(message)

    async def refuse(self, scope: Scope, *, wait: bool = True) -> None:
        """wait: a connection closed upon a client that still sends would take the answer with it."""
        if wait:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._drained(), PATIENCE)
        words = f"This request is larger than the {self.limit / 2**20:.0f} MB that this server takes at once."
        await PlainTextResponse(words, 413, headers={"Connection": "close"})(scope, self.receive, self.send)

    async def _drained(self) -> None:
        most = self.taken + DRAINED
        while not self.whole and self.taken < most:
            message = await self.receive()
            self.taken += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)


def _announced(headers: Mapping[bytes, bytes]) -> int:
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0
