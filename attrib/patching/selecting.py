"""Which edges make a circuit: the strongest ones that lie on a way from the embeddings to the logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.patching.edges import EdgeGraph

Keep = int | float


@dataclass(frozen=True, eq=False)
class Selection:
    """asked: how many edges were to be kept. kept: (sender, receiver) bool, those of them on a way through.

    senders: (sender,) bool, the nodes left. unreached: how many nodes that a kept edge touches are not.
    """

    asked: int
    kept: Tensor
    senders: Tensor
    unreached: int

    @property
    def edges(self) -> int:
        return int(self.kept.sum())

    @property
    def dropped(self) -> int:
        """Edges that were strong enough but lead nowhere, or come from nowhere."""
        return self.asked - self.edges

    @property
    def nodes(self) -> int:
        return int(self.senders.sum()) + 1  # and the logits


def count_of(keep: Keep, edges: int) -> int:
    """How many of the edges `keep` means: an int is a number of them, a float a share, rounded up."""
    whole = isinstance(keep, int) and not isinstance(keep, bool)
    if whole and 0 <= keep <= edges:
        return int(keep)
    if isinstance(keep, float) and 0.0 <= keep <= 1.0:
        return math.ceil(keep * edges - 1e-9)
    raise InputError(f"keep = {keep!r}: give a number of edges, 0 to {edges}, or a share as a float, 0.0 to 1.0")


def selected(graph: EdgeGraph, scores: Tensor, count: int) -> Selection:
    """The `count` edges of largest |score|, (sender, receiver), less those on no way from embed to the logits."""
    sizes = scores.abs().masked_fill(~graph.exists.to(scores.device), -1.0).flatten()
    asked = torch.zeros(sizes.numel(), dtype=torch.bool)
    asked[sizes.cpu().sort(descending=True, stable=True).indices[:count]] = True
    asked = asked.view_as(graph.exists)
    reached, reaching = _reached(graph, asked), _reaching(graph, asked)
    receivers = (graph.read_by & reaching).any(1)
    receivers[-1] = True
    kept = asked & reached[:, None] & receivers
    senders = (reached & reaching) if kept.any() else torch.zeros_like(reached)
    touched = asked.any(1) | (graph.read_by & asked.any(0)[:, None]).any(0)
    return Selection(count, kept, senders, int((touched & ~senders).sum()))


def _reached(graph: EdgeGraph, asked: Tensor) -> Tensor:
    """(sender,) those that embed leads to."""
    found = torch.zeros(len(graph.senders), dtype=torch.bool)
    while True:
        receivers = (asked & found[:, None]).any(0)
        now = (graph.read_by & receivers[:, None]).any(0)
        now[0] = True
        if torch.equal(now, found):
            return found
        found = now


def _reaching(graph: EdgeGraph, asked: Tensor) -> Tensor:
    """(sender,) those that lead to the logits."""
    found = torch.zeros(len(graph.senders), dtype=torch.bool)
    while True:
        receivers = (graph.read_by & found).any(1)
        receivers[-1] = True
        now = (asked & receivers).any(1)
        if torch.equal(now, found):
            return found
        found = now
