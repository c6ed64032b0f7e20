"""A model run on some of its edges: a receiver sees the current value of senders it is joined to, else the ablated one.

What a receiver reads is the stream put together for it alone, from kept senders' current and all others' ablated
values. Every head's queries, keys and values read their own stream: a batch with a row for each goes through the
block's norm and projections, and each takes its columns of its row; attention then runs on the composite. Several
circuits of one prompt run as rows of one batch, block by block, or by whole forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.failures import is_out_of_memory
from attrib.patching.access import Change, reading, writing
from attrib.patching.blocks import Call, NotReplayable, recorded
from attrib.patching.course import Stretch, stream
from attrib.patching.edges import EdgeGraph, Receiver
from attrib.patching.prompt import Prompt
from attrib.patching.sending import check_course, contributions, sent
from attrib.patching.stretches import StretchCall, StretchTail, stretches
from attrib.patching.structure import Place
from attrib.patching.tail import Tail
from attrib.rules.shadow import shadow

_NUMBERS_AT_ONCE = 2**25  # of what all senders of all circuits in one batch add to the stream
_ROWS_AT_ONCE = 2**12  # token positions that go through projections together


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
    joining = {place: _one(values[place]) for r in graph.receivers for stretch in r.course for place in stretch.places}
    return Ablated(contributions(graph, matrices, values, 1)[0], joining), score


@dataclass(frozen=True, eq=False)
class Pruned:
    """One prompt, ready to be run on any edges of its model. passing: a twin whose norms the stream alone passes, while
    `twin` is written to."""

    graph: EdgeGraph
    twin: nn.Module
    passing: nn.Module
    matrices: list[Tensor | None]
    calls: tuple[Call | StretchCall, ...]
    tail: Tail | StretchTail
    ablated: Ablated

    @torch.no_grad()
    def scores(self, kept: Tensor, on_progress: Callable[[float], None] = lambda fraction: None) -> Tensor:
        """(circuits,) the explained number with the edges `kept`, (circuits, sender, receiver) bool, alone.

        on_progress: called with the finished fraction before each block; what it raises stops the run.
        """
        parts = kept.split(max(1, _NUMBERS_AT_ONCE // self.ablated.senders.numel()))
        shares = [partial(_share, on_progress, done, len(parts)) for done in range(len(parts))]
        return torch.cat([self._scores(part, share) for part, share in zip(parts, shares, strict=True)])

    def _scores(self, kept: Tensor, on_progress: Callable[[float], None]) -> Tensor:
        change = self.ablated.senders.new_zeros(len(kept), *self.ablated.senders.shape)
        kept = (kept & self.graph.exists.to(kept.device)).to(change)
        change[:, 0] = _one(self.calls[0].hidden) - self.ablated.senders[0]
        for layer in range(len(self.calls)):
            on_progress(layer / len(self.calls))
            self._layer(layer, kept, change)
        of = torch.zeros(len(kept), dtype=torch.long, device=kept.device)
        return self.tail.scores(self._inputs([len(self.graph.receivers) - 1], kept, change)[:, 0], of)

    def _layer(self, layer: int, kept: Tensor, change: Tensor) -> None:
        """Fill in the change of what this layer's heads or mixer and its MLP put out."""
        graph, place = self.graph, self.graph.structure.layers[layer]
        mixing, mlp, receiver = graph.mixing[layer], graph.mlps[layer], graph.mlp_of(layer)
        whole = [i for i in graph.of_layer(layer) if graph.receivers[i].site is None]
        found: Mapping[Place, Tensor] = {}

        def mixed(values: Mapping[Place, Tensor]) -> None:
            if mixing is not None:
                added = sent(mixing, self.matrices[layer], values, len(kept))
                change[:, mixing.part] = added - self.ablated.senders[mixing.part]

        def mlp_input(values: Mapping[Place, Tensor], tensor: Tensor) -> Tensor:
            mixed(values)  # it has just run
            return self._inputs([receiver], kept, change)[:, 0].reshape(tensor.shape)  # type: ignore[list-item]

        if mixing is not None:
            given = {} if whole else self._composites(layer, kept, change)
            reads = whole or ([] if receiver is None or place.mid is not None else [receiver])
            found = self._run(layer, reads, given, None if receiver is None else mlp_input, kept, change)
            mixed(found)
        if receiver is not None and place.mid is None and (mixing is None or whole):
            found = self._run(layer, [receiver], {}, None, kept, change)
        if mlp is not None and place.mlp is not None:
            change[:, mlp] = found[place.mlp].reshape(change[:, mlp].shape) - self.ablated.senders[mlp]

    def _run(
        self,
        layer: int,
        reads: list[int],
        given: Mapping[Place, Tensor],
        mlp_input: Callable[[Mapping[Place, Tensor], Tensor], Tensor] | None,
        kept: Tensor,
        change: Tensor,
    ) -> Mapping[Place, Tensor]:
        """What a layer's components make of the block's input, which the one in `reads` reads, all else `given`."""
        call, place, mixing = self.calls[layer], self.graph.structure.layers[layer], self.graph.mixing[layer]
        hidden = self._inputs(reads, kept, change)[:, 0] if reads else call.hidden.repeat(len(kept), 1, 1)
        made = [] if mixing is None else [mixing.z or mixing.made]
        with ExitStack() as stack:
            found = stack.enter_context(reading(self.twin, [*made, *([] if place.mlp is None else [place.mlp])]))
            changes: dict[Place, Change] = {place: _given(own) for place, own in given.items()}
            if mlp_input is not None and place.mid is not None:
                changes[place.mid] = partial(mlp_input, found.values)
            stack.enter_context(writing(self.twin, changes))
            call.whole(hidden)
        return found.values

    def _inputs(self, numbers: list[int], kept: Tensor, change: Tensor) -> Tensor:
        """(circuits, receivers, tokens, width): what these receivers, who have the same senders before them, read."""

        def added(stretch: Stretch) -> Tensor:
            before = change[:, stretch.part]
            weights = kept[:, stretch.part, numbers].transpose(1, 2)
            ablated = torch.stack([self.ablated.joining[place] for place in stretch.places]).sum(0)
            total: Tensor = (weights @ before.flatten(2)).unflatten(2, before.shape[2:]).flatten(0, 1)
            return total + ablated

        read = stream(self.graph.receivers[numbers[0]].course, self.passing, added)
        return read.reshape(len(kept), len(numbers), *read.shape[1:])

    def _composites(self, layer: int, kept: Tensor, change: Tensor) -> dict[Place, Tensor]:
        """Projection → (circuits, tokens, columns), each receiver's columns made from the stream that it reads."""
        numbers = self.graph.of_layer(layer)
        receivers = [self.graph.receivers[i] for i in numbers]
        streams = self._inputs(numbers, kept, change)
        at_once = max(1, _ROWS_AT_ONCE // (streams.shape[1] * streams.shape[2]))
        parts = [self._composite(self.calls[layer], receivers, rows) for rows in streams.split(at_once)]
        return {place: torch.cat([part[place] for part in parts]) for place in parts[0]}

    def _composite(
        self, call: Call | StretchCall, receivers: Sequence[Receiver], streams: Tensor
    ) -> dict[Place, Tensor]:
        circuits, rows, tokens, _ = streams.shape
        places = list(dict.fromkeys(r.site.place for r in receivers if r.site is not None))
        projected = self._projected(call, places, streams.flatten(0, 1))
        found = {}
        for place, tensor in projected.items():
            apart = tensor.reshape(circuits, rows, tokens, -1)
            own = apart[:, 0].clone()
            for row, receiver in enumerate(receivers):
                if receiver.site is not None and receiver.site.place == place:
                    own[..., receiver.site.part] = apart[:, row, :, receiver.site.part]
            found[place] = own
        return found

    def _projected(self, call: Call | StretchCall, places: Sequence[Place], hidden: Tensor) -> Mapping[Place, Tensor]:
        """What the projections make of hidden states (rows, tokens, width); the block is left behind the last one."""
        found: dict[Place, Tensor] = {}

        def note(place: Place, tensor: Tensor) -> Tensor:
            found[place] = tensor
            if len(found) == len(places):
                raise _Projected
            return tensor

        with writing(self.twin, {p: (lambda tensor, p=p: note(p, tensor)) for p in places}):  # type: ignore[misc]
            try:
                call.whole(hidden)
            except _Projected:
                return found
        raise UnsupportedModel(f"{self.graph.structure.model}: a block ran without its projections")


class _Projected(Exception):
    """All projections are known, which is all that was asked."""


def pruned(
    graph: EdgeGraph, twin: nn.Module, matrices: list[Tensor | None], prompt: Prompt, ablated: Ablated
) -> Pruned:
    """The prompt's run, recorded: block by block, or by whole forwards where blocks cannot be run alone."""
    passing = shadow(prompt.model.module)
    try:
        with torch.no_grad():
            calls = recorded(twin, graph.structure, lambda: prompt.forward(twin, prompt.x), causal=False)
            tail = Tail(prompt.model.module, graph.structure, calls, prompt.forward, prompt.x, prompt.target)
            calls[0].whole(calls[0].hidden.repeat(2, 1, 1))  # some take as many rows as they were recorded with
    except (NotReplayable, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return Pruned(graph, twin, passing, matrices, *stretches(twin, prompt), ablated)
    return Pruned(graph, twin, passing, matrices, calls, tail, ablated)


def _share(on_progress: Callable[[float], None], done: int, total: int, fraction: float) -> None:
    on_progress((done + fraction) / total)


def _given(value: Tensor) -> Change:
    return lambda tensor: value.reshape(tensor.shape)


def _one(tensor: Tensor) -> Tensor:
    """(tokens, width) of a run of one sample."""
    return tensor.reshape(-1, tensor.shape[-1])
