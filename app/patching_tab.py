"""The patching tab: two prompts, what decides between two answers, heatmaps of every kind of site, verification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from app import markup, patching_downloads, patching_links, patching_markup, patching_running
from app.catalogue import Catalogue
from app.parts import SIDE, Parts
from app.patching import PatchAnswer
from app.patching_parts import ASKED, SHOWN, draw_answers, draw_method, draw_prompts, draw_result, draw_sites
from app.patching_prompts import answered, connect_prompts, look_at, looked_at
from app.patching_questions import USUAL_FILLER, PatchAsk, controls_of
from app.running import PRIVATE, UNCHANGED, Updates
from app.scripts import SAVE
from app.server import Server
from app.showing import connect_share
from app.text_parts import name_of


def build(server: Server) -> None:
    """Draw the tab and connect its events; call it inside a gr.Tab."""
    parts, catalogue = Parts("text", SHOWN, ASKED), server.catalogue
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_classes=SIDE):
            draw_prompts(parts, catalogue)
            draw_method(parts)
        with gr.Column(scale=7, min_width=320):
            draw_answers(parts)
            draw_sites(parts)
            draw_result(parts)
    ask = partial(_ask, parts)
    connect_prompts(server, parts)
    patching_running.connect(server, parts, ask)
    _connect_result(server, parts)
    _connect_link(server, parts, ask)


def _connect_result(server: Server, parts: Parts) -> None:
    def redraw(answer: PatchAnswer | None, *display: Any) -> Any:
        return gr.skip() if answer is None else patching_markup.shown(answer, *display)

    for component in parts.display:
        component.input(redraw, [parts.answer, *parts.display], parts.gallery, trigger_mode="always_last", **PRIVATE)

    def write(wanted: str, answer: PatchAnswer | None, *display: Any) -> str:
        if answer is None:
            raise gr.Error("There is nothing to download yet; press Patch first.", print_exception=False)
        how, palette = display
        return patching_downloads.write_one(answer, how, palette, server.folder, wanted)

    for wanted in ("zip", "html", "png", "safetensors", "json"):
        event = parts.named[wanted].click(partial(write, wanted), [parts.answer, *parts.display], parts.file, **PRIVATE)
        event.success(None, parts.file, None, js=SAVE, **PRIVATE)


def _connect_link(server: Server, parts: Parts, ask: Any) -> None:
    def query(*values: Any) -> str:
        return patching_links.to_query(patching_links.PatchView(ask(values[2:]), *values[:2]))

    connect_share(parts, query)

    outputs = [
        server.tabs, *dict.fromkeys([*parts.question, *looked_at(parts), *parts.display]), parts.settings_box,
        parts.status, *parts.groups.values(),
    ]  # fmt: skip

    def restore(request: gr.Request) -> Updates:
        asked = dict(request.query_params)
        if asked.get("tab") != "patching":
            return UNCHANGED
        view, problems = patching_links.from_query(asked, server.catalogue)
        return {server.tabs: gr.update(selected="patching"), **_restored(parts, server.catalogue, view, problems)}

    server.page.load(restore, None, outputs, **PRIVATE)


def _restored(parts: Parts, catalogue: Catalogue, view: patching_links.PatchView, problems: list[str]) -> Updates:
    ask = view.ask
    if ask.model not in catalogue:
        ask = replace(ask, model=catalogue.of("text")[0])
    filler = ask.filler or USUAL_FILLER
    updates = look_at(parts, catalogue, ask.clean, ask.corrupted, ask.model, bool(ask.filler), filler)
    updates = answered(parts, catalogue, updates, ask) | {
        parts.wished: ask if ask.clean or ask.corrupted else None,
        parts.clean: ask.clean, parts.corrupted: ask.corrupted, parts.model: ask.model, parts.method: ask.method,
        parts.kinds: list(ask.kinds), parts.patterns: ", ".join(ask.patterns), parts.pad: bool(ask.filler),
        parts.filler: filler,
        parts.how: view.how, parts.palette: view.palette,
        parts.settings_box: gr.update(open=bool(ask.settings or ask.patterns)),
    }  # fmt: skip
    for name, components in parts.settings.items():
        given = ask.settings if name == ask.method else {}
        updates[parts.groups[name]] = gr.update(visible=name == ask.method)
        for control, component in zip(controls_of(name), components, strict=True):
            updates[component] = given.get(control.name, control.shown)
    if problems:
        updates[parts.status] = markup.status(" ".join(problems), "error")
    return updates


def _ask(parts: Parts, values: Sequence[Any]) -> PatchAsk:
    clean, corrupted, model, answer, wrong, method, kinds, patterns, pad, filler, *flat = values
    settings, position = {}, 0
    for name, components in parts.settings.items():
        mine = flat[position : position + len(components)]
        position += len(components)
        if name == method:
            settings = {c.name: value for c, value in zip(controls_of(name), mine, strict=True)}
    return PatchAsk(
        clean or "", corrupted or "", model, name_of(answer), name_of(wrong), method, tuple(kinds or ()),
        patching_links.patterns(patterns or ""), settings, (filler or USUAL_FILLER) if pad else "",
    )  # fmt: skip
