"""What the endpoints for programs have in common, and those that list what is on offer."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, TypeVar

import anyio
import gradio as gr

import attrib
from app import downloads, explaining, offers
from app.answers import Answer
from app.questions import Ask
from app.running import HEAVY, UNEXPECTED
from app.runs import Run
from app.server import Server
from attrib.render import Display, has_parts, is_text
from attrib.render.tokens import part_of

log = logging.getLogger("attrib.app")
Found = TypeVar("Found")
LONGEST = 2000  # letters of an error: names come from clients


def add_lists(server: Server) -> None:
    """/list_models and /list_methods; call it inside gr.Blocks."""
    trigger, answer = gr.Button(visible=False), gr.JSON(visible=False)
    trigger.click(clear(lambda: list(server.catalogue.names)), None, answer, api_name="list_models",
                  api_description="The models on offer.")  # fmt: skip
    trigger.click(clear(offers.list_methods), None, answer, api_name="list_methods",
                  api_description="The methods with their cards and settings, for image, text and pair.")  # fmt: skip


def heavy(server: Server) -> dict[str, Any]:
    """Options of an endpoint that explains: it waits in one queue with the page's buttons."""
    return {"concurrency_id": HEAVY, "concurrency_limit": server.concurrency}


async def stoppable(server: Server, request: gr.Request, work: Callable[[Run], Found]) -> Found:
    """work(run) in a thread; it stops between its chunks once the client cancels the job or closes its connection.

    Gradio cancels an endpoint that waits (/gradio_api/cancel), never one that computes.
    """
    session = f"{request.session_hash}"
    run = server.runs.begin(session, alone=False)
    try:
        return await anyio.to_thread.run_sync(work, run, abandon_on_cancel=True)
    finally:
        server.runs.end(session, run)


async def explained(server: Server, ask: Ask, display: Display, request: gr.Request) -> Any:
    """The numbers of an answer, and its files."""
    return await stoppable(server, request, partial(_explained, server, ask, display))


def _explained(server: Server, ask: Ask, display: Display, run: Run) -> tuple[dict[str, Any], list[str]]:
    found = Answer()
    for step in explaining.explain(ask, server.catalogue, run):
        found = step.answer
    return document(found), downloads.write(found, display, server.folder) if found.results else []


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number that a program gave. Raises attrib.InputError."""
    if not isinstance(value, (int, float)) or value != value or not low <= value <= high:
        raise attrib.InputError(f"{name} = {value!r}: give a whole number from {low} to {high}")
    return int(value)


def methods_asked(names: Any, settings: Any) -> tuple[tuple[str, Any], ...]:
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise attrib.InputError(f"methods: a list of names is needed, got {type(names).__name__}")
    if not isinstance(settings or {}, dict) or not all(isinstance(v, dict) for v in (settings or {}).values()):
        raise attrib.InputError("settings: an object {method: {setting: value}} is needed")
    return tuple((name, (settings or {}).get(name, {})) for name in dict.fromkeys(names))


def name_asked(given: Any, strip: bool = True) -> int | str | None:
    """A target as a program gives it: digits are an index, nothing is None."""
    text = str("" if given is None else given)
    text = text.strip() if strip else text
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text or None


def document(answer: Answer) -> dict[str, Any]:
    """What a program may read of each result, short of the maps themselves, which are in the files."""
    results = {name: _rows(a) if answer.continued else _numbers(a, 0) for name, a in answer.results.items()}
    for name, evidence in answer.evidence.items():
        results[name]["evidence"] = evidence.document()
    return {"results": results, "failures": answer.failures}


def _rows(a: attrib.Attribution) -> dict[str, Any]:
    """A continuation: what differs from one generated token to the next is in `rows`."""
    rows = [_numbers(a, i) for i in range(len(a))]
    common = {name: value for name, value in rows[0].items() if all(row[name] == value for row in rows)}
    return {**common, "rows": [{k: v for k, v in row.items() if k not in common} for row in rows]}


def _numbers(a: attrib.Attribution, i: int) -> dict[str, Any]:
    return {
        "target": a.target[i],
        "score": float(a.score[i]),
        "delta": None if a.delta is None else float(a.delta[i]),
        "ledger": None if a.ledger is None else {name: float(amount[i]) for name, amount in a.ledger.items()},
        "coverage": None if a.coverage is None else str(a.coverage),
        "notes": list(a[i].notes),
        "signed": a.signed,
        "shape": list(a.values.shape),
        "settings": json.loads(json.dumps(a.provenance.settings)),
        "seconds": a.provenance.seconds,
        "weights_hash": a.provenance.weights_hash,
        **(_tokens(a, i) if is_text(a) else {}),
    }


def _tokens(a: attrib.Attribution, i: int) -> dict[str, Any]:
    """Each token with its relevance, its word, and what is content and position where they are known apart."""
    size = len(a.tokens(i))
    parts = {name: part_of(a, name)[i, :size].tolist() for name in ("content", "position")} if has_parts(a) else None
    words = None if a.words is None else list(a.words[i])
    return {"tokens": [list(pair) for pair in a.tokens(i)], "words": words, "parts": parts}


def clear(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Errors reach the client as one sentence. handler: a function, or a coroutine's."""

    @wraps(handler)
    def answered(*values: Any, **named: Any) -> Any:
        with _one_sentence():
            return handler(*values, **named)

    @wraps(handler)
    async def awaited(*values: Any, **named: Any) -> Any:
        with _one_sentence():
            return await handler(*values, **named)

    return awaited if inspect.iscoroutinefunction(handler) else answered


@contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        yield
    except attrib.AttribError as error:
        raise gr.Error(str(error)[:LONGEST], print_exception=False) from error
    except Exception as error:
        log.exception("an endpoint failed")
        raise gr.Error(UNEXPECTED, print_exception=False) from error
