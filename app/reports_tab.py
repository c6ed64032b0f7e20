"""The Reports tab: many inputs, one run that survives the page, and its pages to read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import gradio as gr

import attrib
from app import markup, report_markup
from app.catalogue import Catalogue
from app.parts import RAW
from app.report_asks import ReportAsk, checked, kind_of
from app.report_folder import ReportFolder
from app.report_inputs import columns_of, table_of, uploads_of
from app.report_jobs import Job, Jobs
from app.report_parts import ReportParts, begin, draw_inputs, draw_methods, draw_reports
from app.running import PRIVATE, UNEXPECTED, Updates, connect_groups, methods_of
from app.server import Server

log = logging.getLogger("attrib.app")

CHOSEN = "Choose methods, then make the report."
TICK = 0.5  # seconds between two looks at a report
WATCHERS = 40  # pages that watch at the same time
TEXTS = ("text", "review", "sentence", "content")  # what the column of texts is often called


def build(server: Server) -> None:
    """Draw the tab and connect its events; call it inside a gr.Tab."""
    jobs = server.jobs
    if jobs is None:
        return
    parts = ReportParts()
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            draw_inputs(parts, server.catalogue)
        with gr.Column(scale=6, min_width=320):
            draw_methods(parts, server.catalogue, jobs.folder)
    draw_reports(parts, jobs)
    for choice in parts.choices.values():
        connect_groups(choice)
    _connect_inputs(server.catalogue, jobs.folder, parts)
    _connect_runs(server, parts, jobs)


def _connect_inputs(catalogue: Catalogue, folder: ReportFolder, parts: ReportParts) -> None:
    """The model's kind decides which methods are shown; a table brings its columns, and a model for texts."""
    n = parts.named

    def follow(payload: Any, model: str) -> Updates:
        try:
            table = table_of(uploads_of(payload))
            kind = kind_of(catalogue, model)
            for_texts = [name for name in catalogue.names if kind_of(catalogue, name) == "text"]
            if table is not None and kind != "text" and for_texts:
                model, kind = for_texts[0], "text"
            names = [] if table is None else columns_of(table)
        except attrib.AttribError as error:
            return {n["columns"]: gr.update(visible=False), n["status"]: markup.status(str(error), "error")}
        likely = next((name for name in names if name.lower() in TEXTS), names[0] if names else None)
        own = next((name for name in names if name.lower() == "target"), "")
        return {
            n["model"]: model, n["status"]: markup.status(CHOSEN if payload else begin(folder)),
            n["columns"]: gr.update(visible=bool(names)), n["text_column"]: gr.update(choices=names, value=likely),
            n["target_column"]: gr.update(choices=[("none", ""), *((name, name) for name in names)], value=own),
            **{box: gr.update(visible=name == kind) for name, box in parts.boxes.items()},
        }  # fmt: skip

    for event in (n["files"].change, n["model"].input):
        event(follow, [n["files"], n["model"]], parts.by_model, trigger_mode="always_last", **RAW, **PRIVATE)


def _connect_runs(server: Server, parts: ReportParts, jobs: Jobs) -> None:
    n = parts.named
    shown = [n[name] for name in ("status", "list", "viewer", "watched", "start", "cancel")]
    said = _sentences(n["status"])
    watching = {"concurrency_id": "reports", "concurrency_limit": WATCHERS, **PRIVATE}

    def start(*values: Any) -> Iterator[Updates]:
        payload, _, name = values[:3]
        ask = asked(parts, server.catalogue, values)
        yield {n["status"]: markup.status("Taking over the files …", "busy"), n["start"]: gr.update(interactive=False)}
        yield from _watch(parts, jobs, jobs.start(str(name or ""), ask, uploads_of(payload)))

    def act(event: gr.EventData) -> Iterator[Updates]:
        action, name = str(event.action), str(event.name)
        if action == "open":
            jobs.folder.get(name)
            yield {n["viewer"]: report_markup.viewer(jobs.folder, name)}
        elif action == "continue":
            yield from _watch(parts, jobs, jobs.go_on(name))
        elif action == "watch":
            yield from _watch(parts, jobs, jobs.latest(name))
        elif action == "cancel":
            jobs.cancel(name)
        elif action == "delete":
            jobs.delete(name)
            told = markup.status(f"{name} is deleted.")
            yield {n["list"]: report_markup.listed(jobs), n["status"]: told, n["viewer"]: ""}

    def opened(request: gr.Request) -> Iterator[Updates]:
        """What a page that is loaded shows: the reports, and how far one is; `?tab=reports` opens the tab."""
        if request.query_params.get("tab") == "reports":
            yield {server.tabs: gr.Tabs(selected="reports")}
        yield {n["list"]: report_markup.listed(jobs)}
        yield from _watch(parts, jobs, next(iter(jobs.running()), None))

    def cancel(name: str) -> None:
        jobs.cancel(name)  # whoever watches tells the rest; a word of ours might arrive after the last of theirs

    n["start"].click(said(start, n["start"]), parts.asked, shown, trigger_mode="once", **watching, **RAW)
    n["list"].click(said(act), None, shown, trigger_mode="multiple", **watching)
    server.page.load(said(opened), None, [*shown, server.tabs], **watching)
    n["cancel"].click(cancel, n["watched"], None, queue=False, **PRIVATE)


def asked(parts: ReportParts, catalogue: Catalogue, values: Sequence[Any]) -> ReportAsk:
    """The question that the page's values make, before its files are looked at. Raises attrib's errors."""
    _, model, _, targets, text_column, target_column = values[:6]
    kind, rest = kind_of(catalogue, model), list(values[6:])
    methods: tuple[Any, ...] = ()
    evidence: tuple[str, ...] = ()
    for name, choice in parts.choices.items():
        wanted, chosen, *flat = rest[: 2 + len(choice.flat)]
        rest = rest[2 + len(choice.flat) :]
        if name == kind:
            methods, evidence = methods_of(choice, chosen, flat), tuple(wanted or ())
    ask = checked(catalogue, model, methods, targets, evidence)
    columns = {"text": text_column, "target": target_column} if kind == "text" else {}
    return replace(ask, columns={k: str(v) for k, v in columns.items() if v})


def _watch(parts: ReportParts, jobs: Jobs, job: Job | None) -> Iterator[Updates]:
    """Tell how far a report is until it ends; it goes on when nobody watches."""
    n = parts.named
    if job is None:
        return
    running = {n["start"]: gr.update(interactive=False), n["cancel"]: gr.update(interactive=True)}
    yield {n["watched"]: job.name, n["list"]: report_markup.listed(jobs), n["status"]: report_markup.progress(job),
           n["viewer"]: "", **running}  # fmt: skip
    while not job.ended.wait(TICK):
        yield {n["status"]: report_markup.progress(job)}
    ended = {n["start"]: gr.update(interactive=True), n["cancel"]: gr.update(interactive=False)}
    found = {} if job.error else {n["viewer"]: report_markup.viewer(jobs.folder, job.name)}
    yield {n["status"]: report_markup.progress(job), n["list"]: report_markup.listed(jobs), **ended, **found}


def _sentences(status: Any) -> Callable[..., Callable[..., Iterator[Updates]]]:
    """What goes wrong becomes a sentence in `status`."""

    def said(handler: Callable[..., Iterator[Updates]], again: Any = None) -> Callable[..., Iterator[Updates]]:
        @wraps(handler)
        def guarded(*values: Any) -> Iterator[Updates]:
            more = {} if again is None else {again: gr.update(interactive=True)}
            try:
                yield from handler(*values)
            except attrib.AttribError as error:
                yield {status: markup.status(str(error), "error"), **more}
            except Exception:
                log.exception("a handler of the reports failed")
                yield {status: markup.status(UNEXPECTED, "error"), **more}

        return guarded

    return said
