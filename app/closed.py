"""What gradio offers to every client, without a switch, and this app does not.

Gradio downloads any public address that a client names: in `file=http://…` and in a file's path in a request. Here
nothing is fetched for a client but models, by their names.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

REFUSED = "This server fetches no addresses; upload the file itself."
NO_UPLOAD = "A value is not what is asked for here: a file must be one that was uploaded to this server, as {path: …}."
_ADDRESSES = ("file=http{rest:path}", "file/http{rest:path}", "proxy={rest:path}")
_UNUSED = (
    "deep_link",
    "process_recording",
    "component_server",
    "dev/reload",
    "custom_component/{rest:path}",
    "stream/{rest:path}",
)
_METHODS = ["GET", "POST"]  # and HEAD, with GET


class Page(gr.Blocks):  # type: ignore[misc]
    """Blocks that take no address for a file, and say what is wrong with one that they cannot take."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *rest: Any, **named: Any) -> Any:
        if _names_address(inputs):
            raise gr.Error(REFUSED, print_exception=False)
        try:
            return await super().preprocess_data(block_fn, inputs, *rest, **named)
        except gr.Error:  # a ValueError too: a component has said what is wrong, such as a number out of bounds
            raise
        except ValueError as error:  # gradio's InvalidPathError, pydantic's ValidationError
            raise gr.Error(NO_UPLOAD, print_exception=False) from error


def routes() -> list[Route]:
    """They come before gradio's own."""
    refused = [Route(f"/gradio_api/{path}", _refuse, methods=_METHODS) for path in _ADDRESSES]
    return refused + [Route(f"/gradio_api/{path}", _absent, methods=_METHODS) for path in _UNUSED]


def _names_address(value: Any) -> bool:
    """Whether there is a file in it whose path is an address."""
    if isinstance(value, dict):
        path = str(value.get("path") or "").strip().lower()
        return path.startswith(("http:", "https:")) or any(map(_names_address, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_names_address, value))


def _refuse(_: Request) -> PlainTextResponse:
    return PlainTextResponse(REFUSED, 403)


def _absent(_: Request) -> PlainTextResponse:
    return PlainTextResponse("There is no such page.", 404)
