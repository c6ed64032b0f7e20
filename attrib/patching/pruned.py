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

from attrib.patching.ablation import Ablated, one_row
from attrib.patching.access import Change, reading, writing
from attrib.patching.blocks import recorded
from attrib.patching.calls import Call, NotReplayable, alone
from attrib.patching.composites import composites
from attrib.patching.course import Stretch, stream
from attrib.patching.edges import EdgeGraph, Mixing
from attrib.patching.places import Place
from attrib.patching.prompt import Prompt
from attrib.patching.sending import sent
from attrib.patching.stretches import StretchCall, StretchTail, stretches
from attrib.patching.tail import Tail
from attrib.rules.shadow import shadow

_NUMBERS_AT_ONCE = 2**25  # of what all senders of all circuits in one batch add to the stream


@dataclass(frozen=True, eq=False)
class Pruned:
    """One prompt, ready to be run on any edges of its model. passing: a twin whose norms the stream alone passes, while
    `twin` is written to. notes: what a reader has to know of how it runs."""

    graph: EdgeGraph
    twin: nn.Module
    passing: nn.Module
    matrices: list[Tensor | None]
    calls: tuple[Call | StretchCall, ...]
    tail: Tail | StretchTail
    ablated: Ablated
    notes: tuple[str, ...] = ()

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
        change[:, 0] = one_row(self.calls[0].hidden) - self.ablated.senders[0]
        for layer in range(len(self.calls)):
            on_progress(layer / len(self.calls))
            self._layer(layer, kept, change)
        of = torch.zeros(len(kept), dtype=torch.long, device=kept.device)
        return self.tail.scores(self._inputs([len(self.graph.receivers) - 1], kept, change)[:, 0], of)

    def _layer(self, layer: int, kept: Tensor, change: Tensor) -> None:
        """Fill in the change of what this layer's heads or mixers and its MLP put out.

        All inputs that are projections, one that reads the block's whole input, and an MLP that reads the stream inside
        run at once; others that read the whole input run before by themselves.
        """
        graph, place = self.graph, self.graph.structure.layers[layer]
        mlp, receiver = graph.mlps[layer], graph.mlp_of(layer)
        reading_all = [i for i in graph.of_layer(layer) if graph.receivers[i].made is not None]
        mixing = {each.made: each for each in graph.mixing[layer]}
        if receiver is not None and place.mid is None:
            reading_all.append(receiver)
        for i in reading_all[:-1]:
            made = graph.receivers[i].made
            self._note([mixing.pop(made)], layer, self._run(layer, i, {}, None, kept, change), change)  # type: ignore[arg-type]
        rest = list(mixing.values())

        def mlp_input(values: Mapping[Place, Tensor], tensor: Tensor) -> Tensor:
            self._note(rest, layer, values, change)  # they have just run
            return self._inputs([receiver], kept, change)[:, 0].reshape(tensor.shape)  # type: ignore[list-item]

        given = self._projections(layer, kept, change)
        inside = mlp_input if receiver is not None and place.mid is not None else None
        found = self._run(layer, next(iter(reading_all[-1:]), None), given, inside, kept, change)
        self._note(rest, layer, found, change)
        if mlp is not None and place.mlp is not None:
            change[:, mlp] = found[place.mlp].reshape(change[:, mlp].shape) - self.ablated.senders[mlp]

    def _note(self, mixing: Sequence[Mixing], layer: int, values: Mapping[Place, Tensor], change: Tensor) -> None:
        """Fill in the change of what these have put out."""
        for each in mixing:
            added = sent(each, self.matrices[layer], values, len(change))
            change[:, each.part] = added - self.ablated.senders[each.part]

    def _run(
        self,
        layer: int,
        reads: int | None,
        given: Mapping[Place, Tensor],
        mlp_input: Callable[[Mapping[Place, Tensor], Tensor], Tensor] | None,
        kept: Tensor,
        change: Tensor,
    ) -> Mapping[Place, Tensor]:
        """What a layer's components make of the block's input, which the receiver `reads` reads, all else `given`."""
        call, place = self.calls[layer], self.graph.structure.layers[layer]
        hidden = call.hidden.repeat(len(kept), 1, 1) if reads is None else self._inputs([reads], kept, change)[:, 0]
        made = [mixing.z or mixing.made for mixing in self.graph.mixing[layer]]
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

    def _projections(self, layer: int, kept: Tensor, change: Tensor) -> dict[Place, Tensor]:
        """Projection → (circuits, tokens, columns), each receiver's columns made from the stream that it reads."""
        numbers = [i for i in self.graph.of_layer(layer) if self.graph.receivers[i].site is not None]
        sites = [site for i in numbers if (site := self.graph.receivers[i].site) is not None]
        if not sites:
            return {}
        return composites(self.twin, self.calls[layer].whole, sites, self._inputs(numbers, kept, change))


def pruned(
    graph: EdgeGraph, twin: nn.Module, matrices: list[Tensor | None], prompt: Prompt, ablated: Ablated
) -> Pruned:
    """The prompt's run, recorded: block by block, or by whole forwards where blocks cannot be run alone."""
    passing, notes = shadow(prompt.model.module), tuple[str, ...]()
    calls: Sequence[Call | StretchCall]
    tail: Tail | StretchTail
    try:
        with torch.no_grad(), alone():
            calls = recorded(twin, graph.structure, lambda: prompt.forward(twin, prompt.x), causal=False)
            tail = Tail(prompt.model.module, graph.structure, calls, prompt.forward, prompt.x, prompt.target)
            for call in calls:
                call.whole(call.hidden.repeat(2, 1, 1))  # some take as many rows as they were recorded with
    except NotReplayable as error:
        calls, tail = stretches(twin, prompt)
        notes = (f"every layer is run by a whole forward: the blocks cannot be run one by one ({error})",)
    return Pruned(graph, twin, passing, matrices, tuple(calls), tail, ablated, notes)


def _share(on_progress: Callable[[float], None], done: int, total: int, fraction: float) -> None:
    on_progress((done + fraction) / total)


def _given(value: Tensor) -> Change:
    return lambda tensor: value.reshape(tensor.shape)
