"""`python -m benchmarks.patching`: how well RelP and AtP estimate activation patching, and what each costs.

Correlations are over real weights and prompts made for the model's tokenizer; each part of the pairs is saved as it is
finished, so that a run that was stopped goes on where it was. Nothing is left out of the tables, whatever they show.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import attrib
from attrib.methods.base import Method
from attrib.patching.sites import kind_of
from attrib.patching.tasks import TASKS, Task
from benchmarks.patching_cost import costs
from benchmarks.report import machine

SITES = ("resid_post.*", "attn_out.*", "mlp_out.*")
KINDS = {"resid_post": "residual stream", "attn_out": "attention output", "mlp_out": "MLP output"}
METHODS: tuple[Method, ...] = (
    attrib.AttributionPatching(sites=SITES),
    attrib.RelP(sites=SITES),
    attrib.ActivationPatching(sites=SITES),
)
_PART = 10  # pairs that are saved together


def main(
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of prompts.")] = 100,
    task: Annotated[str, typer.Option(help=f"One of {', '.join(TASKS)}.")] = "ioi",
    model: Annotated[str, typer.Option(help="A name from `attrib models list`.")] = "smollm2-135m",
    seed: Annotated[int, typer.Option(help="Of the prompts.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where finished parts are kept.")] = Path("build/patching"),
    correlations: Annotated[bool, typer.Option(help="The table of correlations.")] = True,
    timings: Annotated[bool, typer.Option(help="The table of costs.")] = True,
) -> None:
    """Print the tables as Markdown for the README."""
    torch.set_num_threads(1)
    print(machine(torch.device("cpu")), flush=True)
    subject = attrib.load(model)
    if correlations:
        made = TASKS[task](subject, pairs, seed)
        kept = folder / f"{model}-{subject.weights_hash[:8]}-{task}-{pairs}-{seed}"
        print("\n" + agreement(subject, made, kept), flush=True)
    if timings:
        print("\n" + costs(subject, TASKS[task](subject, 2, seed)), flush=True)


@dataclass(frozen=True, eq=False)
class Effects:
    """values: (pairs, site, position). change: (pairs,) the metric's, clean − corrupted. seconds: of the computing."""

    sites: tuple[str, ...]
    values: Tensor
    change: Tensor
    seconds: float


def agreement(subject: Any, made: Task, kept: Path) -> str:
    """Correlations with activation patching, as Markdown, over pairs one by one and over their mean."""
    found = [effects(subject, made, method, kept) for method in METHODS]
    true = found[-1]
    differs = (true.values != 0).any(1, keepdim=True).expand_as(true.values)
    heads = ["sites", *(f"{name}, {what}" for what in ("pair by pair", "mean over pairs") for name in ("AtP", "RelP"))]
    heads += ["AtP, differing positions", "RelP, differing positions"]
    rows = [heads, ["---"] * len(heads)]
    for kind, label in KINDS.items():
        own = [i for i, name in enumerate(true.sites) if kind_of(name) == kind]
        cells = [pearson(e.values[:, own], true.values[:, own]) for e in found[:2]]
        cells += [pearson(e.values[:, own].mean(0), true.values[:, own].mean(0)) for e in found[:2]]
        here = differs[:, own]
        cells += [pearson(e.values[:, own][here], true.values[:, own][here]) for e in found[:2]]
        rows.append([label, *(f"{r:.3f}" for r in cells)])
    grid = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    took = ", ".join(f"{method.name} {e.seconds:.0f} s" for method, e in zip(METHODS, found, strict=True))
    about = (
        f"Pearson's r with activation patching (denoising): {made.name} on {subject.name}, {len(made)} pairs of "
        f"{true.values.shape[2]} tokens, {len(true.sites)} sites at every position; logit(answer) − logit(wrong), on "
        f"average {float(true.change.mean()):.2f} more in the clean run ({int((true.change > 0).sum())} of {len(made)} "
        f"pairs). Differing positions: where some true effect is not 0. Computed in {took}."
    )
    return f"{about}\n\n{grid}"


def effects(subject: Any, made: Task, method: Method, kept: Path) -> Effects:
    """What the method finds for all pairs, in parts that are saved and read again."""
    parts = []
    for start in range(0, len(made), _PART):
        stop, folder = min(start + _PART, len(made)), kept / f"{method.name}-{start:04d}"
        if not (folder / "attribution.json").is_file():
            began = time.perf_counter()
            given = attrib.pair(made.pair.clean[start:stop], made.pair.corrupted[start:stop])
            attrib.explain(subject, given, method, made.target[start:stop]).save(folder)
            print(f"{method.name}: {stop} of {len(made)}, {time.perf_counter() - began:.1f} s", flush=True)
        parts.append(attrib.Attribution.load(folder))
    values, change = torch.cat([p.values for p in parts]), torch.cat([p.score for p in parts])
    return Effects(parts[0].sites or (), values, change, sum(p.provenance.seconds for p in parts))


def pearson(first: Tensor, second: Tensor) -> float:
    """Of all numbers of both; NaN where one does not vary."""
    a, b = (t.double().flatten() - t.double().mean() for t in (first, second))
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 0 else math.nan


if __name__ == "__main__":
    typer.run(main)
