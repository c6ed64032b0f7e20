"""The metric of pairs of prompts with some of a model's edges alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attrib.errors import InputError, UnsupportedModel
from attrib.patching.ablation import Ablated, ablated_run
from attrib.patching.edges import EdgeGraph
from attrib.patching.prompt import Prompt
from attrib.patching.pruned import pruned
from attrib.patching.sending import output_matrices
from attrib.rules.shadow import shadow

if TYPE_CHECKING:
    from attrib.models.text import TextModel

_EXACT = 1e-3  # of the metric, or what rounding makes of it if that is more: a wrong mask does far worse


def metrics_on_edges(
    model: TextModel,
    graph: EdgeGraph,
    prompts: Sequence[tuple[Prompt, Prompt]],
    kept: Tensor,
    ablation: str,
    on_progress: Callable[[float, str], None] | None,
) -> tuple[Tensor, tuple[str, ...]]:
    """((pairs, runs) the metric of clean prompts with the edges `kept`, (runs, sender, receiver) bool; notes).

    The first run is with all edges: raises UnsupportedModel where it is not the model's own. Raises InputError where
    there is no mean to ablate with.
    """
    twin = shadow(model.module)
    matrices = output_matrices(twin, graph)
    mean = _mean(graph, twin, matrices, [clean for clean, _ in prompts]) if ablation == "mean" else None
    found, notes = [], list[str]()
    for done, (clean, corrupted) in enumerate(prompts):
        ablated = mean or ablated_run(graph, twin, matrices, corrupted)[0]
        run = pruned(graph, twin, matrices, clean, ablated)
        scores = run.scores(kept.to(clean.x.device), partial(_told, on_progress, done, len(prompts)))
        with torch.no_grad():
            true = clean.scores(twin, clean.x)[0]
        allowed = max(_EXACT, math.sqrt(torch.finfo(true.dtype).eps)) * max(1.0, float(true.abs()))
        if not float((scores[0] - true).abs()) <= allowed:
            raise UnsupportedModel(
                f"{model.name}, put together again from all of its edges, has metric {float(scores[0]):.6g} instead of "
                f"{float(true):.6g}: its prompts act on each other in a batch, or it hands more than the stream on"
            )
        found.append(scores.cpu())
        notes += run.notes
    if on_progress is not None:
        on_progress(1.0, "circuit")
    return torch.stack(found), tuple(dict.fromkeys(notes))


def _told(on_progress: Callable[[float, str], None] | None, done: int, total: int, fraction: float) -> None:
    if on_progress is not None:
        on_progress((done + fraction) / total, "circuit")


def _mean(graph: EdgeGraph, twin: nn.Module, matrices: list[Tensor | None], clean: Sequence[Prompt]) -> Ablated:
    lengths = {prompt.x.shape[1] for prompt in clean}
    if len(lengths) > 1:
        raise InputError(f"the pairs have {sorted(lengths)} tokens, so there is no mean position by position")
    if len(clean) < 2:
        raise InputError('the mean of one prompt is the prompt itself; give several pairs, or ablation="corrupted"')
    return Ablated.mean([ablated_run(graph, twin, matrices, prompt)[0] for prompt in clean])
