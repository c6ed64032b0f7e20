"""The beginning of a text as a causal model keeps it: what comes before a change is computed once for all changes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attrib.outputs import logits_of

if TYPE_CHECKING:
    from attrib.models.text import TextModel

_TOLERANCE = 1e-4  # of the largest logit: rounding in another order, never another position


@dataclass
class Prefix:
    """Keys and values of the first `length` tokens of one text, as transformers' causal models hand them out."""

    model: TextModel
    twin: nn.Module
    kept: Any = None
    length: int = 0

    def extend(self, x: Tensor, length: int) -> None:
        """Keep the first `length` tokens of x, (1, tokens, width), of which those so far are kept already."""
        if length > self.length:
            self.kept = self._run(x[:, self.length : length], self.kept).past_key_values
            self.length = length

    def logits(self, x: Tensor) -> Tensor:
        """(rows, vocabulary) behind the last token of rows that go on from here with x, (rows, tokens, width)."""
        lent = None if self.kept is None else _lent(self.kept, len(x))
        return logits_of(self._run(x, lent, use_cache=lent is not None))[:, -1]

    def grown(self, x: Tensor) -> Tensor:
        """(1, vocabulary) behind the last token of x, (1, tokens, width), which is kept from now on."""
        output = self._run(x, self.kept)
        self.kept, self.length = output.past_key_values, self.length + x.shape[1]
        return logits_of(output)[:, -1]

    def _run(self, x: Tensor, kept: Any, use_cache: bool = True) -> Any:
        options = {"logits_to_keep": 1} if "logits_to_keep" in self.model.takes else {}
        with torch.no_grad():
            return self.twin(inputs_embeds=x, past_key_values=kept, use_cache=use_cache, **options)


def _lent(kept: Any, rows: int) -> Any:
    """What is kept of one text as if it were of `rows`; running on leaves it as it is, and adds nothing to it.

    Copies for all rows exist in one layer at a time, where it is of keys and values alone.
    """
    from transformers.cache_utils import DynamicLayer

    layers = getattr(kept, "layers", ())
    plain = all(isinstance(layer, DynamicLayer) and _tensors(layer) == {"keys", "values"} for layer in layers)
    if not layers or not plain:
        lent = copy.deepcopy(kept)
        lent.batch_repeat_interleave(rows)
        return lent
    lent = copy.copy(kept)
    lent.layers = [_lent_layer(layer, rows) for layer in layers]
    return lent


def _lent_layer(kept: Any, rows: int) -> Any:
    layer = copy.copy(kept)
    layer.keys, layer.values = (t.expand(rows, *t.shape[1:]) for t in (kept.keys, kept.values))
    before, update = dict(vars(layer)), layer.update

    def forgetting(*args: Any, **kwargs: Any) -> Any:
        found = update(*args, **kwargs)
        vars(layer).update(before)
        return found

    layer.update = forgetting
    return layer


def _tensors(layer: Any) -> set[str]:
    return {name for name, value in vars(layer).items() if isinstance(value, Tensor)}


def keeps_prefixes(model: TextModel, twin: nn.Module, x: Tensor) -> bool:
    """Whether `model` goes on from a kept beginning of x, (1, tokens, width), to the logits that it gives without."""
    if model.task != "next_token" or not {"past_key_values", "use_cache"} <= model.takes or x.shape[1] < 2:
        return False
    if model.keeps_prefixes is None:
        model.keeps_prefixes = _agrees(model, twin, x)
    return model.keeps_prefixes


def _agrees(model: TextModel, twin: nn.Module, x: Tensor) -> bool:
    prefix, half = Prefix(model, twin), x.shape[1] // 2
    try:
        prefix.extend(x, half)
        found = prefix.logits(x[:, half:].repeat(2, 1, 1))
    except (TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError, IndexError, KeyError):
        return False  # keeps something else, or in another way
    with torch.no_grad():
        whole = logits_of(twin(inputs_embeds=x, use_cache=False))[:, -1]
    return found.shape[1:] == whole.shape[1:] and bool((found - whole).abs().max() <= _TOLERANCE * whole.abs().max())
