"""What receivers see of senders whose edges are not kept: a run of the corrupted prompt, or the mean of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attrib.patching.access import reading
from attrib.patching.edges import EdgeGraph
from attrib.patching.places import Place
from attrib.patching.prompt import Prompt
from attrib.patching.sending import check_course, contributions


@dataclass(frozen=True, eq=False)
class Ablated:
    """A run, or the mean of several, to take ablated values from.

    senders: (sender, tokens, width), what each adds to the stream. joining: (tokens, width) of each place that senders
    and their biases add up to.
    """

    senders: Tensor
    joining: dict[Place, Tensor]

    @staticmethod
    def mean(runs: Sequence[Ablated]) -> Ablated:
        joining = {place: torch.stack([run.joining[place] for run in runs]).mean(0) for place in runs[0].joining}
        return Ablated(torch.stack([run.senders for run in runs]).mean(0), joining)


def ablated_run(
    graph: EdgeGraph, twin: nn.Module, matrices: list[Tensor | None], prompt: Prompt
) -> tuple[Ablated, Tensor]:
    """(what a run of the prompt gives to ablate with, its explained number (1,)). Raises UnsupportedModel."""
    with torch.no_grad(), reading(twin, graph.places) as found:
        score = prompt.scores(twin, prompt.x)
    values = found.values
    check_course(graph, twin, values)
    joining = {
        place: one_row(values[place]) for r in graph.receivers for stretch in r.course for place in stretch.places
    }
    return Ablated(contributions(graph, matrices, values, 1)[0], joining), score


def one_row(tensor: Tensor) -> Tensor:
    """(tokens, width) of a run of one sample."""
    return tensor.reshape(-1, tensor.shape[-1])
