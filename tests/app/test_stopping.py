"""A program's cancel reaches the work: gradio gives up the coroutine that waits for it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

import attrib
from app import api, leaving
from app.runs import Run, Runs

WAIT = 60  # seconds; none of it is used unless the test fails
REQUEST: Any = SimpleNamespace(session_hash="program")


def apart(coroutine: Any) -> Any:
    """In a thread without an event loop of its own: a browser test before this one leaves one behind."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, coroutine).result()


def working(begun: threading.Event, ended: threading.Event, run: Run) -> None:
    begun.set()
    try:
        for _ in range(WAIT * 100):
            run.check()
            run.stopped.wait(0.01)
    except attrib.Cancelled:
        ended.set()


@pytest.mark.parametrize("how", ["the job is cancelled", "the connection is closed"])
def test_work_that_nobody_waits_for_stops(how: str) -> None:
    begun, ended, runs = threading.Event(), threading.Event(), Runs(100)
    server: Any = SimpleNamespace(runs=runs)

    async def asked() -> None:
        waiting = asyncio.create_task(api.stoppable(server, REQUEST, lambda run: working(begun, ended, run)))
        assert await asyncio.to_thread(begun.wait, WAIT)
        if how == "the job is cancelled":
            waiting.cancel()
        else:
            assert runs.cancel("program")
        assert await asyncio.to_thread(ended.wait, WAIT)
        await asyncio.gather(waiting, return_exceptions=True)

    apart(asked())
    assert not runs.cancel("program")


def test_what_the_work_finds_and_raises_comes_through() -> None:
    runs = Runs(100)
    server: Any = SimpleNamespace(runs=runs)
    assert apart(api.stoppable(server, REQUEST, lambda run: run.says("found"))) == "found"
    with pytest.raises(ZeroDivisionError):
        apart(api.stoppable(server, REQUEST, lambda run: 1 // 0))
    assert not runs.cancel("program")


@pytest.mark.parametrize("broken", [True, False])
def test_work_stops_when_the_stream_of_its_answer_ends(broken: bool) -> None:
    runs = Runs(100)
    run, other = runs.begin("event", alone=False), runs.begin("another", alone=False)

    async def streams(scope: Any, receive: Any, send: Any) -> None:
        if broken:
            raise OSError("the client is gone")

    async def asked(method: str, path: str) -> None:
        await leaving.Leaving(streams, runs)({"type": "http", "method": method, "path": path}, None, None)  # type: ignore[arg-type]

    def answered(method: str, path: str) -> None:
        if broken:
            with pytest.raises(OSError, match="gone"):
                apart(asked(method, path))
        else:
            apart(asked(method, path))

    answered("POST", "/gradio_api/call/explain_image")
    answered("GET", "/gradio_api/file=event")
    run.check()
    answered("GET", "/gradio_api/call/explain_image/event")
    with pytest.raises(attrib.Cancelled):
        run.check()
    other.check()
