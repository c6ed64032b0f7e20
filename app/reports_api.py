"""The named endpoint for programs: /report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

import attrib
from app import report_asks
from app.api import clear, methods_asked
from app.parts import RAW
from app.places import new_place
from app.report_inputs import uploads_of
from app.report_jobs import Jobs
from app.report_routes import zipped
from app.reports_tab import WATCHERS
from app.server import Server


def add(server: Server) -> None:
    """Call it inside gr.Blocks."""
    jobs, catalogue = server.jobs, server.catalogue
    if jobs is None:
        return
    with gr.Row(visible=False):
        files, trigger = gr.File(file_count="multiple", label="files"), gr.Button()
        model = gr.Textbox(catalogue.names[0], label="model")
        methods = gr.JSON(
            report_asks.usual_methods(report_asks.kind_of(catalogue, catalogue.names[0])), label="methods"
        )
        targets, settings = gr.JSON([], label="targets"), gr.JSON({}, label="settings")
        name = gr.Textbox("", label="name")
        columns = gr.JSON({}, label="columns")
        evidence = gr.JSON([], label="evidence")
        answer, whole = gr.JSON(label="answer"), gr.File(label="zip")

    def report(
        files: Any, model: str, methods: Any, targets: Any, settings: Any, name: str, columns: Any, evidence: Any = None
    ) -> tuple[dict[str, Any], str]:
        wanted = _names("targets", targets)
        measures = _names("evidence", evidence)
        asked = report_asks.checked(catalogue, model, methods_asked(methods, settings), "\n".join(wanted), measures)
        ask = replace(asked, columns=_columns(columns) if asked.kind == "text" else {})
        job = jobs.start(str(name or ""), ask, uploads_of(files))
        job.ended.wait()
        if job.error:
            raise attrib.ReportError(f"{job.name}: {job.error}")
        found = jobs.folder.get(job.name)
        told = {"name": job.name, "counts": found.counts, "failures": job.failures}
        return told, _saved(jobs, job.name, server.folder)

    trigger.click(
        clear(report), [files, model, methods, targets, settings, name, columns, evidence], [answer, whole],
        api_name="report", concurrency_id="reports", concurrency_limit=WATCHERS, **RAW,
        api_description="Explain many inputs: pictures, or one CSV, JSONL or text file. methods: list of names; targets"
        ": list of labels or indices, none: each input's own, else its top prediction; settings: {method: {setting: "
        "value}}; columns: {\"text\": …, \"target\": …}, what they are called in a table; name: the same one with the "
        "same question goes on with what is finished; evidence: what to measure of every map, lights or names of "
        "metrics. Returns name, counts and the first failures, and a zip.",
    )  # fmt: skip


def _names(what: str, given: Any) -> list[str]:
    several = given if isinstance(given, list) else [given] if given not in (None, "") else []
    if not all(isinstance(one, (str, int)) and "\n" not in str(one) for one in several):
        raise attrib.InputError(f"{what}: a list of labels or indices is needed")
    return [str(one) for one in several]


def _columns(given: Any) -> dict[str, str]:
    given = given or {}
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise attrib.InputError('columns: an object is needed, such as {"text": "review", "target": "label"}')
    for name in given:
        if name not in ("text", "target", "id"):
            raise attrib.UnknownName("column of a table of inputs", name, ("text", "target", "id"))
    return dict(given)


def _saved(jobs: Jobs, name: str, folder: str) -> str:
    path = new_place(folder) / f"{name}.zip"
    with path.open("wb") as file:
        file.writelines(zipped(jobs.folder.report(name), name))
    return str(path)
