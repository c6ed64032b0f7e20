"""How much a client may send, and what is closed: by a request's body alone, and at a real server."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from app import bodies, closed
from app.bodies import Bounded, Limits

MB = 2**20


async def _counting(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers with the length of the body, and 400 where it cannot read one, as FastAPI does."""
    try:
        words, status = str(len(await Request(scope, receive).body())), 200
    except Exception as error:
        words, status = str(error), 400
    await PlainTextResponse(words, status)(scope, receive, send)


def answer(path: str, pieces: list[bytes], folder: Path, length: int | None = None) -> tuple[int, str, int]:
    """Status, words, and how many pieces were taken. A last piece that is empty: the client went away instead."""
    sent: list[Message] = []
    left = list(pieces)

    async def receive() -> Message:
        if not left or not left[0]:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    bounded = Bounded(_counting, Limits(upload=1000, other=100, folder=folder))
    with ThreadPoolExecutor(1) as thread:  # Playwright keeps a loop running in this one
        thread.submit(asyncio.run, bounded(scope, receive, send)).result()
    words = b"".join(m.get("body", b"") for m in sent).decode()
    return int(sent[0]["status"]), words, len(pieces) - len(left)


def test_what_is_small_enough_passes(tmp_path: Path) -> None:
    assert answer("/gradio_api/call/x", [b"a" * 50, b"b" * 50], tmp_path)[:2] == (200, "100")
    assert answer(bodies.UPLOAD, [b"a" * 500, b"b" * 500], tmp_path)[:2] == (200, "1000")


@pytest.mark.parametrize("length", [None, 202], ids=["chunks", "announced"])
@pytest.mark.parametrize("path", ["/gradio_api/call/x", "/gradio_api/queue/join", "/login", "/"])
def test_what_is_larger_is_refused_in_one_sentence(path: str, length: int | None, tmp_path: Path) -> None:
    status, words, taken = answer(path, [b"a" * 101, b"b" * 101], tmp_path, length)
    assert (status, words.count(".")) == (413, 1)
    assert taken == 2  # heard out: who still sends when the connection closes never reads the answer


def test_files_of_one_upload_are_bounded_together(tmp_path: Path) -> None:
    assert answer(bodies.UPLOAD, [b"a" * 600, b"b" * 600], tmp_path)[0] == 413


def test_an_endless_body_is_not_heard_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "DRAINED", 1000)
    status, _, taken = answer("/", [b"a" * 100] * 100, tmp_path)
    assert status == 413
    assert taken < 20


def test_an_upload_that_breaks_off_is_told_as_such(tmp_path: Path) -> None:
    assert answer(bodies.UPLOAD, [b"a" * 10, b""], tmp_path)[:2] == (400, "the upload broke off")


def test_a_full_folder_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo").write_bytes(b"x" * 11)
    monkeypatch.setattr(bodies, "KEPT", 10)
    assert answer(bodies.UPLOAD, [b"a"], tmp_path)[0] == 503
    assert answer("/gradio_api/call/x", [b"a"], tmp_path)[0] == 200


def _chunks() -> Iterator[bytes]:
    yield from [b"x" * MB] * 3


def test_a_server_refuses_a_large_request_of_any_kind(server: Any) -> None:
    for path in ("gradio_api/call/list_models", "gradio_api/queue/join", "gradio_api/cancel"):
        for body in (b"x" * (3 * MB), _chunks()):
            told = httpx.post(server.url + path, content=body, headers={"Content-Type": "application/json"})
            assert (told.status_code, "larger than the 1 MB" in told.text) == (413, True), path


def test_half_an_upload_leaves_nothing_behind(server: Any) -> None:
    def files() -> set[Path]:
        return {path for path in server.cache.rglob("*") if path.is_file()}

    before, place = files(), urlsplit(server.url)
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 600000\r\n"
    part = '--B\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    with socket.create_connection((str(place.hostname), int(place.port or 0))) as client:
        client.sendall(f"{head}Content-Type: multipart/form-data; boundary=B\r\n\r\n{part}".encode() + b"x" * 200_000)
        assert _within(30, lambda: bool(files() - before))
    assert _within(30, lambda: not files() - before)


def _within(seconds: float, condition: Any) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


@pytest.mark.parametrize("address", ["http://192.0.2.1/a.png", "https://example.com/a.png", "HTTP://192.0.2.1/a.png"])
def test_a_server_fetches_no_address(server: Any, address: str) -> None:
    for path in (f"file={address}", f"file/{address}", f"proxy={address}"):
        told = httpx.get(f"{server.url}gradio_api/{path}")
        assert told.status_code in (403, 404)
        assert closed.REFUSED in told.text or "not allowed" in told.text
    assert closed.REFUSED in asked(server, {"path": address, "meta": {"_type": "gradio.FileData"}})


@pytest.mark.parametrize("photo", ["/etc/hostname", {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}])
def test_a_file_that_was_not_uploaded_is_told_as_such(server: Any, photo: Any) -> None:
    assert "was uploaded" in asked(server, photo)


def asked(server: Any, photo: Any) -> str:
    """What /predict_image says of a photo, over plain HTTP."""
    at = f"{server.url}gradio_api/call/predict_image"
    event = httpx.post(at, json={"data": [photo, "squeezenet1_1", 3]}).json()["event_id"]
    return httpx.get(f"{at}/{event}", timeout=60).text


def test_pages_that_the_app_does_not_use_are_closed(server: Any) -> None:
    for path in ("gradio_api/dev/reload", "gradio_api/deep_link?session_hash=x", "openapi.json", "docs"):
        assert httpx.get(server.url + path).status_code == 404, path
    for path in ("gradio_api/component_server", "gradio_api/process_recording", "gradio_api/stream/x"):
        assert httpx.post(server.url + path, json={}).status_code == 404, path
