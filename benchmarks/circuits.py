"""`python -m benchmarks.circuits`: faithfulness of the strongest edges of RelP and of plain EAP by their number."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import attrib
from attrib.methods.base import Method
from attrib.patching.tasks import TASKS
from benchmarks.report import machine

METHODS: tuple[tuple[str, Method], ...] = (
    ("RelP", attrib.RelP(edges=True)),
    ("RelP, attention constant", attrib.RelP(edges=True, attention="constant")),
    ("EAP", attrib.AttributionPatching(edges=True)),
)
SIZES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of prompts.")] = 10,
    task: Annotated[str, typer.Option(help=f"One of {', '.join(TASKS)}.")] = "ioi",
    model: Annotated[str, typer.Option(help="A name from `attrib models list`.")] = "smollm2-135m",
    seed: Annotated[int, typer.Option(help="Of the prompts.")] = 0,
    ablation: Annotated[str, typer.Option(help="corrupted or mean.")] = "corrupted",
    folder: Annotated[Path | None, typer.Option(help="Where to write the circuits' files; default: nowhere.")] = None,
) -> None:
    """Print the table as Markdown."""
    torch.set_num_threads(1)
    print(machine(torch.device("cpu")), flush=True)
    subject = attrib.load(model)
    made = TASKS[task](subject, pairs, seed)
    print("\n" + table(subject, made, ablation, folder), flush=True)


def table(subject: Any, made: Any, ablation: str, folder: Path | None) -> str:
    """Faithfulness and completeness of each method at each size, and what it took."""
    circuits, took = {}, []
    for name, method in METHODS:
        began = time.process_time()
        result = attrib.explain(subject, made.pair, method, made.target)
        scored = time.process_time() - began
        found = attrib.circuit(subject, made.pair, result, 0.02, sizes=SIZES, ablation=ablation)
        took.append(f"{name} {scored:.0f} s + {time.process_time() - began - scored:.0f} s")
        print(took[-1], flush=True)
        circuits[name] = found
        if folder is not None:
            _written(found, folder, name)
    any_one = next(iter(circuits.values()))
    rows = [["strongest edges", *(f"{name}, {what}" for name in circuits for what in ("F(C)", "F(M∖C)", "edges"))]]
    rows.append(["---"] * len(rows[0]))
    for i, size in enumerate(any_one.curve):
        own = [found.curve[i] for found in circuits.values()]
        numbers = [cell for s in own for cell in (f"{s.faithfulness:.2f}", f"{s.completeness:.2f}", str(s.edges))]
        rows.append([str(size.asked), *numbers])
    grid = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return (
        f"{made.name} on {subject.name}, {len(made)} pairs: metric {any_one.full:.3f} with all {any_one.possible} "
        f"edges, {any_one.empty:.3f} with all ablated ({ablation}). Edges: those of the strongest on a way from the "
        f"embeddings to the logits. CPU time of scoring + running {len(any_one.curve)} circuits and their complements: "
        f"{', '.join(took)}.\n\n{grid}"
    )


def _written(found: attrib.Circuit, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = name.lower().replace(", ", "-").replace(" ", "-")
    for ending in ("json", "graphml"):
        found.save(folder / f"{stem}.{ending}")
    found.plot().savefig(folder / f"{stem}-curve.png", dpi=120)
    found.draw().savefig(folder / f"{stem}-graph.png", dpi=120)


if __name__ == "__main__":
    typer.run(main)
