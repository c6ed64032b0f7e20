"""The named endpoint for programs: /patch."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

import attrib
from app import patching, patching_circuit, patching_downloads
from app.api import clear, heavy, name_asked, stoppable, whole
from app.patching_links import USUAL_PALETTE, USUAL_SCALE
from app.patching_questions import MODEL, SITE_KINDS, USUAL_KINDS, PatchAsk
from app.runs import Run
from app.server import Server
from app.watching import watched


def add(server: Server) -> None:
    """Call it inside gr.Blocks. The components are never shown: they type and check what programs send."""
    catalogue = server.catalogue
    with gr.Row(visible=False):
        clean, corrupted = gr.Textbox("", label="clean"), gr.Textbox("", label="corrupted")
        first, second = gr.Textbox("", label="answer"), gr.Textbox("", label="wrong")
        model = gr.Textbox(MODEL if MODEL in catalogue else catalogue.of("text")[0], label="model")
        method, settings = gr.Textbox("relp", label="method"), gr.JSON({}, label="settings")
        sites = gr.JSON([SITE_KINDS[kind][1] for kind in USUAL_KINDS], label="sites")
        filler = gr.Textbox("", label="filler")
        k = gr.Number(0, precision=0, minimum=0, maximum=patching.MOST_VERIFIED, label="verify")
        edges = gr.Number(0, precision=0, minimum=0, maximum=patching_circuit.MOST_KEPT, label="circuit")
        trigger = gr.Button()
        found, files = gr.JSON(label="found"), gr.File(file_count="multiple", label="files")

    async def patch(
        clean: str, corrupted: str, answer: Any, wrong: Any, model: str, method: str, sites: Any, settings: Any,
        filler: str, verify: Any, circuit: Any, request: gr.Request,
    ) -> Any:  # fmt: skip
        ask = PatchAsk(
            clean or "", corrupted or "", model, name_asked(answer, False), name_asked(wrong, False), method, (),
            _patterns(sites), _object(settings), filler or "",
        )  # fmt: skip
        k = whole("verify", verify or 0, 0, patching.MOST_VERIFIED)
        keep = whole("circuit", circuit or 0, 0, patching_circuit.MOST_KEPT)
        return await stoppable(server, request, partial(_patched, server, ask, k, keep))

    trigger.click(
        clear(patch),
        [clean, corrupted, first, second, model, method, sites, settings, filler, k, edges],
        [found, files],
        api_name="patch", **heavy(server),
        api_description="Which sites carry the difference between two prompts. answer, wrong: tokens with their "
        "leading space, or indices as text; wrong empty: the answer's logit alone. method: relp, attribution_patching "
        "or activation_patching; sites: names or patterns; settings: {setting: value}; filler: a token, such as the, "
        "that fills up the shorter prompt; verify: so many of the strongest effects are patched for real; circuit: so "
        "many of the strongest edges between heads and MLPs are kept and the model is run on them alone. Returns the "
        "metric of both runs, tokens, sites, the strongest effects, the verification and the circuit (its edges, "
        "faithfulness and completeness), and files: a zip, a page, PNG, values, JSON and the circuit as GraphML.",
    )  # fmt: skip


def _patched(server: Server, ask: PatchAsk, k: int, keep: int, run: Run) -> tuple[dict[str, Any], list[str]]:
    """The k strongest effects are verified, and the circuit of the `keep` strongest edges is found; 0: not asked."""

    def finished(work: Any) -> patching.PatchAnswer:
        return _finished(watched(run, work, lambda *_: None))

    catalogue = server.catalogue
    done = finished(partial(patching.patch, ask, catalogue))
    if k:
        done = finished(partial(patching.verify, done, catalogue, k, ""))
    if keep:
        done = finished(partial(patching_circuit.find, done, catalogue, keep))
    written = patching_downloads.write(done, USUAL_SCALE, USUAL_PALETTE, server.folder)
    return patching_downloads.document(done), written


def _finished(steps: Any) -> patching.PatchAnswer:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: patching.PatchAnswer = end.value
            return found


def _patterns(sites: Any) -> tuple[str, ...]:
    sites = [sites] if isinstance(sites, str) else sites
    if not isinstance(sites, list) or not all(isinstance(site, str) for site in sites):
        raise attrib.InputError(f"sites: a list of names or patterns is needed, got {type(sites).__name__}")
    return tuple(sites)


def _object(settings: Any) -> dict[str, Any]:
    if not isinstance(settings or {}, dict):
        raise attrib.InputError("settings: an object {setting: value} is needed")
    return dict(settings or {})
