"""Rules for attention, spelled out or fused, and for the matrix products in it. c: coefficient R/a from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrib.errors import NotApplicable
from attrib.rules.call import Call, carries
from attrib.rules.ledger import Ledger, booking
from attrib.rules.ruled import on_relevance

SOFTMAX = "softmax remainder"
HALVED = "halved value path"


def matrix_product(call: Call) -> Any:
    """R_A = R_B = R/2 where both factors carry relevance (AttnLRP's uniform rule); linear where one does."""
    other = call.argument(1, "other", call.argument(1, "mat2"))
    output = call.plain()
    if call.x.requires_grad and isinstance(other, Tensor) and other.requires_grad:
        on_relevance(output, lambda c: c / 2)
    return output


def sum_and_product(call: Call) -> Any:
    """addmm and baddbmm: a sum whose second summand is a matrix product; a constant first summand is a bias."""
    first = call.x
    left, right = (call.argument(i, f"batch{i}", call.kwargs.get(f"mat{i}")) for i in (1, 2))
    beta, alpha = call.kwargs.get("beta", 1), call.kwargs.get("alpha", 1)
    if not (left.requires_grad and right.requires_grad):
        output = call.plain()
        if not first.requires_grad:
            on_relevance(output, booking(call.engine.ledger, "bias", first.detach() * beta))
        return output
    product = call.engine.under(lambda: torch.matmul(left, right))
    return call.engine.under(lambda: first * beta + product * alpha)


def softmax(call: Call) -> Any:
    """R_x = x ⊙ (R − s ΣR), the ordinary gradient (deep Taylor, AttnLRP eq. 9); what it leaves out is booked."""
    x = _alias(call.x)
    output = call.function(x, *call.args[1:], **call.kwargs)
    _book_difference(call.engine.ledger, SOFTMAX, [x], output)
    return output


def constant(call: Call) -> Any:
    """The output counts as a constant: no relevance goes through it (CP-LRP's softmax, the scale of a norm)."""
    output = call.plain()
    return output.detach() if isinstance(output, Tensor) else tuple(part.detach() for part in output)


def needs_fused(call: Call) -> Any:
    """Instead of a rule for a softmax, in tables that scale the value path and so must see attention whole."""
    raise NotApplicable(
        "value_path='halved' needs attention in one piece, and this model spells its softmax out; load it with "
        "attn_implementation='sdpa'"
    )


@dataclass(frozen=True)
class FusedAttention:
    """scaled_dot_product_attention without opening it.

    share of queries and keys: ¼ each and ½ of the values is AttnLRP's two bilinear products with the softmax's
    gradient between them; 0 and 1 is CP-LRP, whose attention weights are constants.
    """

    queries: float
    values: float

    def __call__(self, call: Call) -> Any:
        query, key, value = (call.argument(i, name) for i, name in enumerate(("query", "key", "value")))
        mask, rest = call.argument(3, "attn_mask"), call.args[4:]
        settings = {k: v for k, v in call.kwargs.items() if k not in ("query", "key", "value", "attn_mask")}
        if self.queries == 0:
            query, key, mask = query.detach(), key.detach(), None if mask is None else mask.detach()
        else:
            query, key = _scaled(query, self.queries), _scaled(key, self.queries)
            mask = None if mask is None else _scaled(mask, 2 * self.queries)  # a bias of positions is in no product
        value = value if self.values == 1 else _scaled(value, self.values)
        output = call.function(query, key, value, mask, *rest, **settings)
        if self.queries == 0 and self.values != 1:
            _book_difference(call.engine.ledger, HALVED, [value], output)
        if self.queries != 0:
            carrying = [query, key, value] if mask is None else [query, key, value, mask]
            _book_difference(call.engine.ledger, SOFTMAX, carrying, output)
        return output


def multi_head(call: Call) -> Any:
    """nn.MultiheadAttention, rebuilt from linear layers and fused attention that the table's rules then see."""
    m = _MultiHead(call)
    if not m.plain_enough:
        return NotImplemented
    return call.engine.under(m.run)


_MULTI_HEAD = (
    "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training", "key_padding_mask", "need_weights",
    "attn_mask", "use_separate_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "static_k", "static_v",
    "average_attn_weights",
)  # fmt: skip


class _MultiHead:
    """The arguments of F.multi_head_attention_forward: (length, batch, width) in and out."""

    def __init__(self, call: Call) -> None:
        self.given = {name: call.argument(i, name) for i, name in enumerate(_MULTI_HEAD)}

    @property
    def plain_enough(self) -> bool:
        """Whether nothing is appended to keys and values, and there is a batch."""
        batched = self.given["query"].dim() == 3
        return batched and self.given["bias_k"] is None and not self.given["add_zero_attn"]

    def run(self) -> tuple[Tensor, Tensor | None]:
        g, heads = self.given, self.given["num_heads"]
        # batch first: a seq-first product does not fold into one matrix product
        inputs = [g[name].transpose(0, 1) for name in ("query", "key", "value")]
        biases = (None, None, None) if g["in_proj_bias"] is None else g["in_proj_bias"].chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip(inputs, self._projections(), biases, strict=True))
        batch, length, width = q.shape
        q, k, v = (t.view(batch, -1, heads, width // heads).transpose(1, 2) for t in (q, k, v))
        attended, weights = self._attended(q, k, v, self._mask(batch, heads, k.shape[2]))
        joined = attended.transpose(1, 2).reshape(batch, length, width)
        return F.linear(joined, g["out_proj_weight"], g["out_proj_bias"]).transpose(0, 1), weights

    def _projections(self) -> Sequence[Tensor]:
        if not self.given["use_separate_proj_weight"]:
            together: Tensor = self.given["in_proj_weight"]
            return together.chunk(3)
        return [self.given[f"{name}_proj_weight"] for name in "qkv"]

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the heads read, and their weights where the caller wants them, which opens the attention."""
        if self.given["need_weights"] is False:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), None
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        weights = torch.softmax(scores if mask is None else scores + mask, -1)
        averaged = self.given["average_attn_weights"] is not False
        return weights @ v, weights.mean(1) if averaged else weights

    def _mask(self, batch: int, heads: int, keys: int) -> Tensor | None:
        """One additive mask of what may not be attended to."""
        padding, mask = self.given["key_padding_mask"], self.given["attn_mask"]
        if mask is not None and mask.dim() == 3:
            mask = mask.view(batch, heads, *mask.shape[1:])
        total = None
        for part in (mask, None if padding is None else padding.view(batch, 1, 1, keys)):
            if part is not None:
                additive = part.new_zeros(part.shape, dtype=self.given["query"].dtype)
                additive = additive.masked_fill(part, float("-inf")) if part.dtype == torch.bool else additive + part
                total = additive if total is None else total + additive
        return total


def _alias(x: Tensor) -> Tensor:
    """x under another name, so that a hook on it sees this use alone."""
    return x.view_as(x)


def _scaled(x: Tensor, share: float) -> Tensor:
    """x, handing back `share` of its gradient."""
    if not carries(x):
        return x
    alias = _alias(x)
    on_relevance(alias, lambda c: c * share)
    return alias


def _book_difference(ledger: Ledger, name: str, inputs: list[Tensor], output: Tensor) -> None:
    """Σ R(output) − Σ R(inputs), under `name`. Hooks run in order, so an input's scaling is already in its c."""
    value = output.detach()
    on_relevance(output, lambda c: ledger.absorb(name, c * value))
    for x in inputs:
        if carries(x):
            on_relevance(x, _taking(ledger, name, x.detach()))


def _taking(ledger: Ledger, name: str, x: Tensor) -> Any:
    def take(c: Tensor) -> None:
        # a masked score is −∞ with coefficient 0
        ledger.absorb(name, -(c * x).nan_to_num(0.0, 0.0, 0.0))

    return take
