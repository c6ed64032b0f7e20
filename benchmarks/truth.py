"""`python -m benchmarks.truth`: every method against tasks whose truth is known, as Markdown."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
import typer

import attrib
from attrib import truth
from attrib.methods.base import Method
from attrib.metrics.evaluation import Evaluation
from attrib.metrics.summary import number

_OF_TEXTS: tuple[Any, ...] = (
    attrib.LRP("attn_lrp"), attrib.LRP("cp_lrp"), attrib.LRP("attn_lrp", positions=True),
    attrib.LRP("cp_lrp", positions=True),
)  # fmt: skip


def main(
    inputs: Annotated[int, typer.Option(min=3, help="Inputs explained in each task.")] = 32,
    seed: Annotated[int, typer.Option(help="Of the data, the training and the random maps.")] = 0,
    tasks: Annotated[str, typer.Option(help="Names, with commas.")] = ",".join(truth.TASKS),
) -> None:
    """Train, prove, score, and print a table per task."""
    torch.set_num_threads(1)
    for name in tasks.split(","):
        made = truth.make(name.strip(), seed, inputs)
        proofs = "; ".join(map(str, made.proofs))
        print(
            f"\n**{made.name.replace('_', ' ')}.** {made.rule} Held-out accuracy {made.accuracy:.3f}; {proofs}."
            f"{_split(made)} Made in {made.seconds:.0f} s of CPU time.\n"
        )
        methods = _methods(made)
        found = truth.score(made, [method for _, method in methods], seed=seed)
        labels = dict(zip(found.methods, (label for label, _ in methods), strict=True))
        print(table(found, labels, _shares(made, methods)), flush=True)


def _split(made: truth.Truth) -> str:
    if made.on_positions is None:
        return ""
    return (
        f" Of the difference that these words make, interventions give {made.on_positions:.0%} to the positions; the "
        "last column says how much each method does."
    )


def _methods(made: truth.Truth) -> list[tuple[str, Method]]:
    """(label, method): every method that fits, on texts LRP in its transformer presets."""
    plain = [attrib.METHODS[name]() for name in truth.fitting(made)]
    if made.model.kind != "text":
        return [(method.name, _fitted(method)) for method in plain]
    rest = [method for method in plain if method.name != "lrp"]
    labels = ["lrp attn_lrp", "lrp cp_lrp", "lrp attn_lrp, positions", "lrp cp_lrp, positions"]
    return [(method.name, method) for method in rest] + list(zip(labels, _OF_TEXTS, strict=True))


def _fitted(method: Method) -> Method:
    """Windows of the size of what is to be found, in pictures of 24 pixels; all else as it is."""
    return attrib.Occlusion(window=6, stride=3) if method.name == "occlusion" else method


def _shares(made: truth.Truth, methods: list[tuple[str, Method]]) -> dict[str, float]:
    if made.twins is None:
        return {}
    return {label: float(truth.position_share(made, method).mean()) for label, method in methods}


def table(found: Evaluation, labels: dict[str, str], shares: dict[str, float]) -> str:
    """Methods down, best relevance mass first; in bold what is better than random maps (sign-flip test, p ≤ .05)."""
    lines = {(line.method, line.metric): line for line in found.summary()}
    ranked = sorted(found.methods, key=lambda m: -_or_low(lines[m, "relevance_mass"].mean))
    heads = [
        "method",
        *(metric.replace("_", " ") for metric in found.metrics),
        *(["booked on positions"] if shares else []),
    ]
    rows = [heads, ["---"] * len(heads)]
    for method in ranked:
        cells = [_cell(lines[method, metric]) for metric in found.metrics]
        rows.append([f"`{labels[method]}`", *cells, *([number(shares[labels[method]])] if shares else [])])
    for reference in lines[ranked[0], "relevance_mass"].references:
        cells = [number(lines[ranked[0], metric].references[reference]) for metric in found.metrics]
        rows.append([f"*{reference.replace('_', ' ')}*", *cells, *(["–"] if shares else [])])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _or_low(value: float) -> float:
    return value if math.isfinite(value) else -1.0


def _cell(line: Any) -> str:
    if not math.isfinite(line.mean):
        return "–"
    shown = f"**{number(line.mean)}**" if line.verdict == "better than random" else number(line.mean)
    return shown if line.low is None else f"{shown} [{number(line.low)}, {number(line.high)}]"


if __name__ == "__main__":
    typer.run(main)
