"""Layers that are no modules of their own (XLM), or share one with others (ALBERT), run with another stream in front.

The model runs from its beginning with the stream replaced there, so a layer costs a whole forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attrib.patching.access import reading, writing
from attrib.patching.places import Place
from attrib.patching.prompt import Prompt


@dataclass(frozen=True, eq=False)
class StretchCall:
    """One layer of one prompt. pre: the stream in front of it; hidden: (1, tokens, width), what that holds."""

    twin: nn.Module
    prompt: Prompt
    pre: Place
    hidden: Tensor

    def whole(self, hidden: Tensor) -> None:
        """Run on hidden states (rows, tokens, width); what the layer makes of them is read while it runs."""
        _with(self.twin, self.prompt, self.pre, hidden)


@dataclass(frozen=True, eq=False)
class StretchTail:
    """From the stream behind the last layer, `post`, to the explained number."""

    twin: nn.Module
    prompt: Prompt
    post: Place

    def scores(self, hidden: Tensor, of: Tensor) -> Tensor:
        """(rows,) from (rows, tokens, width); of: (rows,) which prompt each is of."""
        return _with(self.twin, self.prompt, self.post, hidden)


def stretches(twin: nn.Module, prompt: Prompt) -> tuple[tuple[StretchCall, ...], StretchTail]:
    """The layers of one prompt, and what follows them."""
    layers = prompt.structure.layers
    with torch.no_grad(), reading(twin, [layer.pre for layer in layers]) as found:
        prompt.forward(twin, prompt.x)
    values = [found.values[layer.pre] for layer in layers]
    rows = [value.reshape(1, -1, value.shape[-1]).clone() for value in values]
    calls = tuple(StretchCall(twin, prompt, layer.pre, row) for layer, row in zip(layers, rows, strict=True))
    return calls, StretchTail(twin, prompt, layers[-1].post)


def _with(twin: nn.Module, prompt: Prompt, place: Place, hidden: Tensor) -> Tensor:
    rows = prompt.x.expand(len(hidden), -1, -1)
    with writing(twin, {place: lambda tensor: hidden.reshape(tensor.shape)}):
        return prompt.scores(twin, rows, torch.zeros(len(rows), dtype=torch.long, device=rows.device))
