"""The patching tab's buttons that take time: Patch, Verify, Cancel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import gradio as gr

import attrib
from app import markup, patching, patching_circuit
from app.parts import Parts
from app.patching import PatchAnswer, Progress, kind_title
from app.patching_markup import shown, verification
from app.patching_questions import METHODS, PatchAsk
from app.running import HEAVY, UNCHANGED, UNEXPECTED, Updates, connect_cancel, connect_refusal, sessions_of
from app.runs import Run
from app.server import Server
from app.watching import watched

log = logging.getLogger("attrib.app")
Work = Callable[[Progress], PatchAnswer]


def connect(server: Server, parts: Parts, ask_of: Callable[[Sequence[Any]], PatchAsk]) -> None:
    """ask_of: the question of the values of `parts.question`."""
    outputs = [parts.answer, parts.gallery, parts.verified, parts.circuit, parts.status, parts.of, *_held(parts)]
    how: dict[str, Any] = {
        "concurrency_id": HEAVY, "concurrency_limit": server.concurrency, "trigger_mode": "once",
        "show_progress": "minimal", "show_progress_on": parts.status, "api_visibility": "private",
    }  # fmt: skip

    def ask_model(request: gr.Request, *values: Any) -> Iterator[Updates]:
        display, asked = values[:2], values[2:]
        yield {
            parts.answer: None,
            parts.gallery: "",
            parts.verified: "",
            parts.circuit: "",
            **_visible(parts, None),
            parts.of: gr.update(value=""),
        }

        def work(on_progress: Progress) -> PatchAnswer:
            return patching.patch(ask_of(asked), server.catalogue, on_progress)

        yield from _run(server, parts, request, work, METHODS.get(str(asked[5]), "patching"), display)

    def switched(request: gr.Request, answer: PatchAnswer | None, *values: Any) -> Iterator[Updates]:
        """Another method answers the question that has an answer."""
        if answer is None:
            yield UNCHANGED
        else:
            yield from ask_model(request, *values)

    def verify(request: gr.Request, answer: PatchAnswer | None, k: Any, of: str, *display: Any) -> Iterator[Updates]:
        if answer is None:
            yield {parts.status: markup.status("Patch first: there is nothing to verify yet.", "error")}
            return

        def work(on_progress: Progress) -> PatchAnswer:
            return patching.verify(answer, server.catalogue, int(k or 0), of, on_progress)

        yield from _run(server, parts, request, work, "Activation patching", display)

    everything = [*parts.display, *parts.question]
    connect_refusal(parts.explain.click(ask_model, everything, outputs, **how), parts)
    connect_refusal(parts.method.input(switched, [parts.answer, *everything], outputs, **how), parts)
    connect_refusal(
        parts.verify.click(verify, [parts.answer, parts.k, parts.of, *parts.display], outputs, **how), parts
    )

    def circuit(request: gr.Request, answer: PatchAnswer | None, keep: Any, *display: Any) -> Iterator[Updates]:
        if answer is None:
            yield {parts.status: markup.status("Patch first: there is nothing to find a circuit of yet.", "error")}
            return

        def work(on_progress: Progress) -> PatchAnswer:
            return patching_circuit.find(answer, server.catalogue, int(keep or 0), on_progress)

        yield from _run(server, parts, request, work, "Circuit", display, patching_circuit.summary)

    connect_refusal(
        parts.find_circuit.click(circuit, [parts.answer, parts.keep_edges, *parts.display], outputs, **how), parts
    )

    connect_cancel(server, parts)


def _run(
    server: Server, parts: Parts, request: gr.Request, work: Work, told: str, display: Sequence[Any],
    says: Callable[[PatchAnswer], str] | None = None,
) -> Iterator[Updates]:  # fmt: skip
    """Do the work, watched; what was there before stays where it fails. says: what it came to, in a sentence."""
    session, _ = sessions_of(request)
    run = server.runs.begin(session)
    try:
        yield {parts.status: markup.status(f"{told} …", "busy"), **_busy(parts, True)}
        busy = partial(_told, parts, run, told)
        answer = yield from watched(run, work, busy)
        yield {
            parts.status: markup.status((says or summary)(answer), "done"),
            **_busy(parts, False),
            **_found(parts, answer, display),
        }
    except attrib.AttribError as error:
        yield {parts.status: markup.status(str(error), "error"), **_busy(parts, False)}
    except Exception:
        log.exception("patching failed")
        yield {parts.status: markup.status(UNEXPECTED, "error"), **_busy(parts, False)}
    finally:
        server.runs.end(session, run)


def _found(parts: Parts, answer: PatchAnswer, display: Sequence[Any]) -> Updates:
    return {
        parts.answer: answer, parts.gallery: shown(answer, *display), parts.verified: verification(answer),
        parts.circuit: patching_circuit.shown(answer),
        parts.of: _kinds(answer), **_visible(parts, answer),
    }  # fmt: skip


def summary(answer: PatchAnswer) -> str:
    a = answer.result
    if answer.verified is not None:
        r = f"{answer.verified.correlation:.3f}".replace("-", "−")
        seconds = answer.verified.true.provenance.seconds
        return f"{len(answer.verified.entries)} effects verified in {seconds:.1f} s: r = {r}"
    return f"{METHODS[answer.ask.method]}: {a.values[0].numel():,} effects in {a.provenance.seconds:.1f} s"


def _told(parts: Parts, run: Run, told: str, fraction: float, _: str) -> Updates:
    return {parts.status: markup.status(run.says(f"{told} …"), "busy", fraction)}


def _kinds(answer: PatchAnswer) -> Any:
    choices = [("all sites", ""), *((kind_title(kind), kind) for kind in answer.kinds)]
    return gr.update(choices=choices, value=answer.of)


def _held(parts: Parts) -> list[Any]:
    return [
        parts.explain,
        parts.cancel,
        parts.verify,
        parts.find_circuit,
        parts.verify_box,
        parts.circuit_box,
        parts.display_box,
        parts.keep,
    ]


def _busy(parts: Parts, yes: bool) -> Updates:
    return {
        parts.explain: gr.update(interactive=not yes), parts.verify: gr.update(interactive=not yes),
        parts.find_circuit: gr.update(interactive=not yes),
        parts.cancel: gr.update(interactive=yes),
    }  # fmt: skip


def _visible(parts: Parts, answer: PatchAnswer | None) -> Updates:
    there = gr.update(visible=answer is not None)
    estimate = gr.update(visible=answer is not None and answer.is_estimate)
    return {parts.verify_box: estimate, parts.circuit_box: estimate, parts.display_box: there, parts.keep: there}
