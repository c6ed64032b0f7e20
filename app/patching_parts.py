"""The components of the patching tab, by name, and how they are drawn."""

from __future__ import annotations

import html

import gradio as gr

import attrib
from app import drawing, markup
from app.catalogue import Catalogue
from app.model_choice import draw_model
from app.parts import Parts, draw_keep, listed
from app.patching import MOST_VERIFIED, VERIFIED
from app.patching_circuit import KEPT, MOST_KEPT
from app.patching_heatmaps import SCALES
from app.patching_links import USUAL_PALETTE, USUAL_SCALE
from app.patching_markup import NO_PAIR
from app.patching_questions import (
    EXAMPLES,
    METHODS,
    MODEL,
    NOT_USUAL,
    SITE_KINDS,
    USUAL_FILLER,
    USUAL_KINDS,
    controls_of,
)
from app.scripts import CHOOSE
from app.text_links import LONGEST
from app.text_parts import NOTHING
from attrib.render import PALETTES

SHOWN = ("how", "palette")
ASKED = ("clean", "corrupted", "model", "answer_token", "wrong", "method", "kinds", "patterns", "pad", "filler")
BEGIN = "Write two prompts that differ in what decides the answer, or take an example."
LIKELY = "The likeliest next tokens of this run will be here."

# a cell says its value when it is pointed at or walked to; only text is ever put into the page
EXPLORE = """
const tip = () => document.getElementById('pt-tip') || document.body.appendChild(
  Object.assign(document.createElement('div'), {id: 'pt-tip', hidden: true}));
const cellOf = event => event.target.closest && event.target.closest('.pt-heat td');
function says(cell) {
  if (cell.title) { cell.dataset.value = cell.title; cell.removeAttribute('title'); }
  const table = cell.closest('table');
  const column = table.tHead.rows[0].cells[cell.cellIndex].textContent.trim();
  const layer = cell.parentElement.cells[0].textContent;
  return `${layer ? `layer ${layer}, ` : ''}${column}: ${cell.dataset.value}`;
}
function show(cell) {
  const box = cell.getBoundingClientRect(), label = tip();
  label.textContent = says(cell); label.hidden = false;
  const wide = label.offsetWidth;
  label.style.left = `${Math.max(4, Math.min(box.left, innerWidth - wide - 8))}px`;
  label.style.top = `${box.bottom + 30 > innerHeight ? box.top - 30 : box.bottom + 4}px`;
}
const hide = () => { tip().hidden = true; };
element.addEventListener('pointerover', event => { const cell = cellOf(event); cell ? show(cell) : hide(); });
element.addEventListener('pointerleave', hide);
element.addEventListener('focusout', hide);
window.addEventListener('scroll', hide, true);
element.addEventListener('focusin', event => {
  if (event.target.matches('.pt-heat')) walk(event.target, event.target.tBodies[0].rows[0].cells[1]);
});
element.addEventListener('click', event => {
  const cell = cellOf(event);
  if (cell) walk(cell.closest('table'), cell);
});
function walk(table, cell) {
  table.querySelectorAll('td[tabindex]').forEach(other => other.removeAttribute('tabindex'));
  table.removeAttribute('tabindex');
  cell.tabIndex = 0; cell.setAttribute('aria-label', says(cell)); cell.focus({preventScroll: true});
  cell.scrollIntoView({block: 'nearest', inline: 'nearest'}); show(cell);
}
element.addEventListener('keydown', event => {
  const cell = cellOf(event);
  const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
  if (!cell || !step) return;
  const row = cell.closest('tbody').rows[cell.parentElement.sectionRowIndex + step[0]];
  const next = row && row.cells[cell.cellIndex + step[1]];
  if (next && next.tagName === 'TD') walk(cell.closest('table'), next);
  event.preventDefault();
});
"""


def draw_prompts(parts: Parts, catalogue: Catalogue) -> None:
    n = parts.named
    with gr.Accordion("Example pairs", open=True, elem_id="pt-examples-box"):
        n["task"] = gr.Radio([(title, task) for task, title in EXAMPLES.items()], label="Task", elem_id="pt-task")
        with gr.Row():
            n["seed"] = gr.Number(0, precision=0, minimum=0, maximum=1_000_000, label="Seed", elem_id="pt-seed",
                                  min_width=90, scale=1)  # fmt: skip
            n["another"] = gr.Button("Another example", elem_id="pt-another", size="md", min_width=140, scale=2)
    n["clean"] = gr.Textbox(
        label="Clean prompt", lines=2, max_lines=8, elem_id="pt-clean", max_length=20_000,
        placeholder="When Mary and John went to the store, John gave a drink to",
    )  # fmt: skip
    n["corrupted"] = gr.Textbox(
        label="Corrupted prompt", lines=2, max_lines=8, elem_id="pt-corrupted", max_length=20_000,
        placeholder="When Mary and John went to the store, Mary gave a drink to",
    )  # fmt: skip
    with gr.Row(visible=False) as n["pad_box"]:
        n["pad"] = gr.Checkbox(False, label="Fill up the shorter prompt", elem_id="pt-pad", min_width=180)
        n["filler"] = gr.Textbox(USUAL_FILLER, label="with this token", elem_id="pt-filler", max_lines=1,
                                 max_length=100, min_width=120)  # fmt: skip
    draw_model(parts, catalogue, "pt", MODEL)


def draw_answers(parts: Parts) -> None:
    n = parts.named
    n["predictions"] = gr.HTML(f'<p class="at-empty">{NO_PAIR}</p>', elem_id="pt-aligned")
    with gr.Row():
        for name, title in (("clean_next", "Clean run"), ("corrupted_next", "Corrupted run")):
            with gr.Column(min_width=200):
                gr.HTML(f"<h2>{title}: next token</h2>", elem_classes="pt-heading", padding=False)
                n[name] = gr.HTML(
                    markup.bars([], None, LIKELY), js_on_load=CHOOSE, elem_id=f"pt-{name.replace('_', '-')}"
                )
    with gr.Row():
        n["answer_token"] = gr.Dropdown(
            [], label="Answer", elem_id="pt-answer", allow_custom_value=True, min_width=200,
            info="Click a token of the clean run, or write one, with its leading space.",
        )  # fmt: skip
        n["wrong"] = gr.Dropdown(
            [NOTHING], value=-1, label="Wrong answer", elem_id="pt-wrong", allow_custom_value=True, min_width=200,
            info="Click a token of the corrupted run, or write one. Nothing: the answer's logit alone.",
        )  # fmt: skip
    # what was looked at, what it showed, and the question whose answers are to be chosen once its prompts are there
    n["seen"], n["looked"], n["wished"] = gr.State(None), gr.State(([], [])), gr.State(None)


def draw_method(parts: Parts) -> None:
    titles = [(title, name) for name, title in METHODS.items()]
    parts.named["method"] = gr.Radio(titles, value="relp", label="Method", elem_id="pt-method")


def draw_sites(parts: Parts) -> None:
    """Sites, settings, and the button that begins."""
    n = parts.named
    n["kinds"] = gr.CheckboxGroup(
        [(title, kind) for kind, (title, _) in SITE_KINDS.items() if kind not in NOT_USUAL], value=list(USUAL_KINDS),
        label="Sites", elem_id="pt-kinds",
    )  # fmt: skip
    with gr.Accordion("More sites, and settings of the method", open=False, elem_id="pt-settings") as n["settings_box"]:
        n["patterns"] = gr.Textbox(
            "", label="More sites", elem_id="pt-patterns", max_lines=2, max_length=2000, placeholder="neuron.3.0:64",
            info="Names or patterns, with commas: head.9.* or neuron.3.0:64; attrib sites MODEL lists them.",
        )  # fmt: skip
        for name in METHODS:
            with gr.Group(visible=name == "relp") as parts.groups[name]:
                card = attrib.METHODS[name].card
                gr.Markdown(html.escape(f"{card.idea} Cost: {card.cost}. {card.misleads}"), padding=True)
                with gr.Row():
                    parts.settings[name] = drawing.draw(controls_of(name))
    with gr.Row():
        n["explain"] = gr.Button("Patch", variant="primary", elem_id="pt-explain", scale=3)
        n["cancel"] = gr.Button("Cancel", variant="stop", elem_id="pt-cancel", interactive=False, scale=1)
    n["status"] = gr.HTML(markup.status(BEGIN), elem_id="pt-status")


def draw_result(parts: Parts) -> None:
    n = parts.named
    with gr.Group(visible=False, elem_id="pt-display") as n["display_box"], gr.Row():
        n["how"] = listed("Colour scale", [(text, key) for key, text in SCALES.items()], USUAL_SCALE, "pt-how")
        n["palette"] = listed("Colours", list(PALETTES), USUAL_PALETTE, "pt-palette")
    n["answer"] = gr.State(None, time_to_live=3600)
    n["gallery"] = gr.HTML("", js_on_load=EXPLORE, elem_id="pt-gallery")
    with gr.Row(visible=False, elem_id="pt-verify-box") as n["verify_box"]:
        n["k"] = gr.Number(VERIFIED, precision=0, minimum=1, maximum=MOST_VERIFIED, label="Strongest",
                           elem_id="pt-k", min_width=110)  # fmt: skip
        n["of"] = listed("Of", [("all sites", "")], "", "pt-of")
        n["verify"] = gr.Button(verify_label(VERIFIED), elem_id="pt-verify", min_width=220, scale=2)
    with gr.Row(visible=False, elem_id="pt-circuit-box") as n["circuit_box"]:
        n["keep_edges"] = gr.Number(KEPT, precision=0, minimum=1, maximum=MOST_KEPT, label="Strongest edges",
                                    elem_id="pt-keep-edges", min_width=110)  # fmt: skip
        n["find_circuit"] = gr.Button("Find the circuit", elem_id="pt-find-circuit", min_width=220, scale=2)
    n["verified"] = gr.HTML("", elem_id="pt-verified")
    n["circuit"] = gr.HTML("", elem_id="pt-circuit")
    draw_keep(parts, "pt", f"Link (your prompts are part of it, up to {LONGEST} characters)")
    with n["keep"]:
        for ending, label in (("png", "PNG"), ("safetensors", "values"), ("json", "JSON")):
            n[ending] = gr.Button(f"Download {label}", elem_id=f"pt-{ending}", size="md", min_width=120)


def verify_label(k: int) -> str:
    return f"Verify the top {k} by activation patching"
