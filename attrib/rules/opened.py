"""Attention opened while a model runs: its weights, whether it is fused, a module of torch's, or spelled out."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrib.rules.attention import multi_head
from attrib.rules.call import Call
from attrib.rules.engine import Engine
from attrib.rules.vocabulary import KIND

_FUSED = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


class OpenedAttention(TorchFunctionMode):
    """In force, it notes the weights of every self-attention of a batch, (batch, heads, tokens, tokens), in order.

    Fused attention is computed with its matrix instead, to the same output up to rounding.
    keep_graph: keep every head with its graph; else the mean over the heads alone, (batch, 1, tokens, tokens).
    opened: how many were fused. elsewhere: shapes of attention that is not from all tokens to all tokens.
    """

    def __init__(self, batch: int, keep_graph: bool) -> None:
        super().__init__()
        self.batch = batch
        self.keep_graph = keep_graph
        self.weights: list[Tensor] = []
        self.opened = 0
        self.elsewhere: list[tuple[int, ...]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = KIND.get(func)
        if kind == "attention":
            self.opened += 1
            return self._spelled_out(dict(zip(_FUSED, args, strict=False)) | kwargs)
        if kind == "multi_head_attention":
            output = multi_head(Call(cast(Engine, self), kind, func, tuple(args), kwargs))
            return func(*args, **kwargs) if output is NotImplemented else output
        output = func(*args, **kwargs)
        if kind == "softmax" and _between_tokens(output, self.batch):
            self._note(output)
        return output

    def under(self, compute: Any) -> Any:
        """`compute()` with this in force, for attention that is rebuilt from other operations."""
        with self:
            return compute()

    def _note(self, weights: Tensor) -> None:
        if weights.dim() == 3:
            weights = weights.reshape(self.batch, -1, *weights.shape[1:])
        if weights.shape[0] != self.batch or weights.shape[2] != weights.shape[3]:
            self.elsewhere.append(tuple(weights.shape))
            return
        self.weights.append(weights if self.keep_graph else weights.detach().mean(1, keepdim=True))

    def _spelled_out(self, given: dict[str, Any]) -> Tensor:
        query, key, value = given["query"], given["key"], given["value"]
        if given.get("enable_gqa"):
            times = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
        scale = given.get("scale")
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        mask = given.get("attn_mask")
        if given.get("is_causal"):
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        # a token that may attend to nothing gets 0, as fused attention gives it
        weights = torch.softmax(scores, -1)
        nowhere = (scores == float("-inf")).all(-1, keepdim=True)
        weights = weights.masked_fill(nowhere, 0.0)
        self._note(weights)
        output: Tensor = weights @ value
        return output


def _between_tokens(weights: Tensor, batch: int) -> bool:
    """Whether a softmax's output looks like attention: a square matrix, more than one by one, for every sample."""
    square = weights.dim() in (3, 4) and weights.shape[-1] == weights.shape[-2] > 1
    return square and weights.shape[0] % batch == 0
