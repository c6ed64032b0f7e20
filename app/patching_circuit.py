"""The circuit of an answer: the strongest edges between heads and MLPs, and how the model does on them alone."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import attrib
from app import controls
from app.catalogue import Catalogue
from app.markup import inert
from app.patching import PatchAnswer, Progress
from app.patching_questions import model_of, target_of
from attrib.render.pictures import drawn

KEPT = 200  # edges at first
MOST_KEPT = 5000
_LISTED = 15


def find(answer: PatchAnswer, catalogue: Catalogue, keep: int, on_progress: Progress) -> PatchAnswer:
    """The answer with its circuit of the `keep` strongest edges, scored by the answer's own method.

    Raises attrib.InputError for true effects, which have no edges, and for a bad `keep`.
    """
    if not answer.is_estimate:
        raise attrib.InputError("edges are scored by RelP or attribution patching; choose one of them and patch again")
    if not 1 <= keep <= MOST_KEPT:
        raise attrib.InputError(f"keep = {keep}: from 1 to {MOST_KEPT} edges make a circuit here")
    ask = answer.ask
    method = controls.build(attrib.METHODS[ask.method], "text", {**ask.settings, "edges": True})
    model = model_of(catalogue, ask.model)
    target = target_of(model, ask)
    scored = attrib.explain(model, answer.pair, method, target, on_progress=_part(on_progress, 0.0, 0.3))
    found = attrib.circuit(model, answer.pair, scored, keep, on_progress=_part(on_progress, 0.3, 0.7))
    return replace(answer, circuit=found)


def shown(answer: PatchAnswer) -> str:
    """The graph, the curve and the strongest edges; empty where no circuit was looked for."""
    found = answer.circuit
    if found is None:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(link.source)}</td><td>{html.escape(link.target)}</td>"
        f"<td>{html.escape(link.receiver)}</td><td>{link.score:+.3g}</td></tr>"
        for link in found.links[:_LISTED]
    )
    size = found.size
    says = (
        f"{size.edges:,} of {found.possible:,} edges, {size.nodes} nodes: faithfulness {found.faithfulness:.3f}, "
        f"completeness {found.completeness:z.3f}"
    )
    lost = size.asked - size.edges
    left_out = f" {lost:,} of the {size.asked:,} strongest lead nowhere and are left out." if lost else ""
    return inert(
        f'<section class="pt-verified" aria-label="Circuit"><h3>Circuit</h3><p><strong>{says}</strong>.{left_out} '
        f"Faithfulness: the share of the metric's change that these edges alone carry. {html.escape(found.reading)}</p>"
        f"{_picture(found.draw(), f'The circuit as a graph: {says}', 'pt-picture at-drawn pt-graph')}"
        f"{_picture(found.plot(), 'Faithfulness and completeness against the number of edges')}"
        '<details class="pt-numbers"><summary>The strongest edges as a table</summary><div class="pt-scroll">'
        '<table class="pt-list"><thead><tr><th scope="col">from</th><th scope="col">to</th><th scope="col">input</th>'
        f'<th scope="col">score</th></tr></thead><tbody>{rows}</tbody></table></div></details></section>'
    )


def summary(answer: PatchAnswer) -> str:
    """What was found, in a line."""
    found = answer.circuit
    if found is None:
        return ""
    return f"Circuit of {found.size.edges:,} of {found.possible:,} edges: faithfulness {found.faithfulness:.3f}"


def numbers(answer: PatchAnswer) -> dict[str, Any] | None:
    """The circuit as its JSON file has it; None where none was looked for."""
    return None if answer.circuit is None else dict(json.loads(answer.circuit.to_json()))


def _part(on_progress: Progress, start: float, size: float) -> Callable[[float, str], None]:
    def part(fraction: float, message: str) -> None:
        on_progress(start + size * fraction, message)

    return part


def _picture(figure: Any, alt: str, kind: str = "pt-picture at-drawn") -> str:
    return f'<div class="pt-scroll"><img class="{kind}" src="{drawn(figure)}" alt="{html.escape(alt)}"></div>'
