"""Exact effects of many patches on a few prompts: only what a patch can change is computed again.

In a causal model a patch at (layer, position) changes nothing before its layer, and there and behind it nothing before
its position; within its layer most sites change their own position alone. So all patches of one position, of all
prompts, run as one batch from layer to layer (each joins at its own layer), on that position and those after it, with
the keys and values of the positions before taken from the base run. Of the last block only the position that is read
is computed, and of the head only the logits that the target needs. Where tokens see those after them too, all positions
are computed from the patched layer on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attrib.patching.access import writing
from attrib.patching.calls import Call
from attrib.patching.prompt import Patch, Tick, overwriting, owners
from attrib.patching.tail import Tail

# more tokens in one call gain nothing: on a CPU the MLP's activations then leave the cache
_TOKENS_AT_ONCE = {"cpu": 1024}


@dataclass(frozen=True, eq=False)
class Replay:
    """Patches on prompts. calls: of the base run. x: the prompts' word embeddings.

    embed: word embeddings (rows, tokens, width) → what block 0 is given. rows: how many run at the same time.
    tick: told how many token positions of a block have been computed.
    """

    twin: nn.Module
    calls: tuple[Call, ...]
    tail: Tail
    causal: bool
    x: Tensor
    embed: Callable[[Tensor], Tensor]
    rows: int
    tick: Tick

    @property
    def tokens(self) -> int:
        return self.calls[0].tokens

    def scores(self, patches: Sequence[Patch]) -> Tensor:
        """(patches,) the explained number with each patch alone."""
        if not patches:
            return self.x.new_empty(0)
        parts, numbers = [], []
        for start, order in self._sweeps(patches):
            sweep = [patches[i] for i in order]
            parts.append(self.tail.scores(self._sweep(sweep, start), self._of(sweep)))
            numbers += order
        return torch.cat(parts)[torch.tensor(numbers, device=self.x.device).argsort()]

    def unpatched(self) -> Tensor:
        """(prompts,) the explained number without a patch, the same way."""
        last = self.calls[-1].made
        of = torch.arange(len(last), device=last.device)
        return self.tail.scores(last[:, -1:] if self.causal else last, of)

    def _of(self, patches: Sequence[Patch]) -> Tensor:
        return owners(patches, self.x)

    def work(self, patches: Sequence[Patch]) -> int:
        """How many token positions of blocks `scores` will compute."""
        return sum((len(self.calls) - p.layer) * (self.tokens - self._start(p)) for p in patches)

    def _start(self, patch: Patch) -> int:
        return patch.position if self.causal else 0

    def _sweeps(self, patches: Sequence[Patch]) -> Iterator[tuple[int, list[int]]]:
        """(first position, which patches): those of one position together, shallow layers first."""
        for start in sorted({self._start(patch) for patch in patches}):
            own = [i for i, patch in enumerate(patches) if self._start(patch) == start]
            own.sort(key=lambda i: (patches[i].layer, self._joins(patches[i])))
            for at in range(0, len(own), self.rows):
                yield start, own[at : at + self.rows]

    def _joins(self, patch: Patch) -> int:
        """Where in its layer: 0 with the stream that enters, 1 inside for all positions, 2 for its own alone."""
        if patch.site.kind in ("embed", "resid_pre"):
            return 0
        return 1 if not self.causal or patch.site.kind in ("k", "v") else 2

    def _sweep(self, patches: list[Patch], start: int) -> Tensor:
        """What the last block puts out, (patches, tokens, width); in a causal model for the last token alone."""
        hidden, of = self.calls[0].made[:0, start:], self._of(patches)  # row i is of patches[i] from the layer it joins
        for layer in range(patches[0].layer, len(self.calls)):
            joining = [[p for p in patches if p.layer == layer and self._joins(p) == place] for place in range(3)]
            entered = torch.cat([hidden, self._entered(layer, joining[0], start)])
            inside = self.calls[layer].hidden[self._of(joining[1]), start:]
            parts = (
                self._onwards(layer, entered, start, of[: len(entered)]),
                self._onwards(layer, inside, start, self._of(joining[1]), joining[1]),
                self._alone(layer, joining[2], start),
            )
            hidden = torch.cat([part for part in parts if len(part)])
        return hidden

    def _onwards(self, layer: int, hidden: Tensor, start: int, of: Tensor, patches: Sequence[Patch] = ()) -> Tensor:
        """Rows through one block; row i, of prompt of[i], with patches[i], where there are any."""
        at_once = _TOKENS_AT_ONCE.get(hidden.device.type, 16384) // hidden.shape[1] or 1
        parts = []
        for at in range(0, len(hidden), at_once):
            rows = hidden[at : at + at_once]
            with writing(self.twin, overwriting(patches[at : at + at_once], start + rows.shape[1])):
                parts.append(self._block(self.calls[layer], rows, start, of[at : at + at_once], bool(patches)))
            self.tick(rows.shape[0] * rows.shape[1])
        return torch.cat(parts) if parts else hidden

    def _block(self, call: Call, rows: Tensor, start: int, of: Tensor, patched: bool) -> Tensor:
        if not self.causal:
            return call.whole(rows, of)
        if call is not self.calls[-1]:
            return call.onwards(rows, start, of)
        return call.onwards(rows, start, of)[:, -1:] if patched else call.last(rows, start, of)

    def _entered(self, layer: int, patches: list[Patch], start: int) -> Tensor:
        """What the block is given with the stream in front of it, or the embeddings, patched."""
        hidden = self.calls[layer].hidden[self._of(patches), start:]
        for row, patch in enumerate(patches):
            if patch.site.kind == "embed":
                x = self.x[patch.of : patch.of + 1].clone()
                x[:, patch.position] = patch.value
                hidden[row] = self.embed(x)[0, start:]
            else:
                hidden[row, patch.position - start] = patch.value
        return hidden

    def _alone(self, layer: int, patches: list[Patch], start: int) -> Tensor:
        """What the block puts out where patches change their own position alone."""
        call, of = self.calls[layer], self._of(patches)
        if not patches:
            return call.made[:0]
        if call is self.calls[-1] and start < self.tokens - 1:
            return call.made[of, -1:]  # nothing reads that position any more
        with writing(self.twin, overwriting(patches, start + 1)):
            own = call.onwards(call.hidden[of, start : start + 1], start, of)
        self.tick(len(patches))
        return torch.cat([own, call.made[of, start + 1 :]], 1)
