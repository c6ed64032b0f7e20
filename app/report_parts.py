"""The components of the Reports tab, by name, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app import markup, report_markup
from app.catalogue import Catalogue
from app.parts import Parts, draw_choice
from app.report_asks import MOST_TARGETS, kind_of, measurable, usual_methods
from app.report_folder import ReportFolder
from app.report_jobs import Jobs

_ANY = ("none", "")


@dataclass
class ReportParts:
    """named: the components. choices: for each kind of input its methods with their settings, of which one is shown."""

    named: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, Parts] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)  # kind -> what is measured of its maps
    boxes: dict[str, Any] = field(default_factory=dict)  # kind -> what is around its methods

    @property
    def asked(self) -> list[Any]:
        """What a question is read from: these, then for each kind evidence, the chosen methods and all settings."""
        own = [self.named[name] for name in ("files", "model", "name", "targets", "text_column", "target_column")]
        return own + [c for kind, p in self.choices.items() for c in (self.evidence[kind], p.methods, *p.flat)]

    @property
    def by_model(self) -> list[Any]:
        """What follows from the model and the files."""
        own = [self.named[name] for name in ("model", "columns", "text_column", "target_column", "status")]
        return [*own, *self.boxes.values()]


def draw_inputs(parts: ReportParts, catalogue: Catalogue) -> None:
    n = parts.named
    n["files"] = gr.File(
        file_count="multiple", elem_id="rp-files", height=180,
        label="Pictures, or one table of texts",
    )  # fmt: skip
    with gr.Row(visible=False, elem_id="rp-columns") as n["columns"]:
        n["text_column"] = gr.Dropdown([], label="Column of the texts", elem_id="rp-text-column", min_width=140)
        n["target_column"] = gr.Dropdown(
            [_ANY], value="", label="Column of targets", elem_id="rp-target-column", min_width=140
        )
    n["model"] = gr.Dropdown(
        list(catalogue.names), value=catalogue.names[0], label="Model", elem_id="rp-model", filterable=False
    )
    n["targets"] = gr.Textbox(
        "", label="Targets", elem_id="rp-targets", lines=1, max_lines=MOST_TARGETS, max_length=2000,
        placeholder="each input's top prediction",
        info=f"Up to {MOST_TARGETS}, one on each line: a label or index, “cat vs dog”, “log_prob: cat”, “predicted”. "
        "Empty: the input's own target, where its table has one, else the top prediction.",
    )  # fmt: skip


def begin(folder: ReportFolder) -> str:
    """What to do first."""
    most = folder.limits
    return (
        f"Choose files to begin: up to {most.inputs} pictures, or one CSV, JSONL or text file; "
        f"{most.upload // 2**20} MB altogether."
    )


def draw_methods(parts: ReportParts, catalogue: Catalogue, folder: ReportFolder) -> None:
    n, first = parts.named, kind_of(catalogue, catalogue.names[0])
    for kind in ("image", "text"):
        if not any(kind_of(catalogue, name) == kind for name in catalogue.names):
            continue
        with gr.Column(visible=kind == first, elem_id=f"rp-{kind}") as parts.boxes[kind]:
            parts.choices[kind] = Parts(kind, (), ())
            draw_choice(parts.choices[kind], f"rp-{kind}", usual_methods(kind))
            parts.evidence[kind] = gr.Dropdown(
                [(title, name) for name, title in measurable(kind).items()], value=[], multiselect=True,
                label="Evidence, measured of every map", elem_id=f"rp-{kind}-evidence",
                info="Optional, and dear: each costs from a few to some hundred passes per map. The report tells them "
                "beside each map, and all of them on a page of their own.",
            )  # fmt: skip
    n["name"] = gr.Textbox(
        "", label="Name of the report", elem_id="rp-name", max_lines=1, max_length=200,
        placeholder="made of the model and the time", info="Letters, digits, - and _; the same files and settings "
        "under the same name go on with what is finished.",
    )  # fmt: skip
    with gr.Row():
        n["start"] = gr.Button("Make the report", variant="primary", elem_id="rp-start", scale=3)
        n["cancel"] = gr.Button("Cancel", variant="stop", elem_id="rp-cancel", interactive=False, scale=1)
    n["status"] = gr.HTML(markup.status(begin(folder)), elem_id="rp-status")


def draw_reports(parts: ReportParts, jobs: Jobs) -> None:
    n = parts.named
    n["list"] = gr.HTML(report_markup.listed(jobs), js_on_load=report_markup.CHOOSE_REPORT, elem_id="rp-list")
    n["watched"] = gr.State("")
    n["viewer"] = gr.HTML("", js_on_load=report_markup.COME_INTO_VIEW, elem_id="rp-viewer")
