"""Inputs as models take them, and what a reader of their maps needs to see of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Encoded:
    """Inputs as the model takes them.

    x: (batch, channel, height, width), float, on the model's device.
    pictures: (batch, height, width, 3) uint8, what the model sees; None when nobody knows.
    hashes: one sha256 per input, of x before it was moved to the model's device and dtype.
    notes: what was decided about the inputs, one sentence each.
    extra: what else the model takes, a row per input; token_texts, words: of texts only.
    """

    x: Tensor
    pictures: np.ndarray | None
    hashes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    extra: dict[str, Tensor] = field(default_factory=dict)
    token_texts: tuple[tuple[str, ...], ...] | None = None
    words: tuple[tuple[int | None, ...], ...] | None = None


@dataclass(frozen=True, eq=False)
class EncodedText(Encoded):
    """Texts as the model takes them.

    x: word embeddings (batch, tokens, width), without positions, shorter inputs padded on the right.
    extra: attention_mask where there is padding, token_type_ids where the tokenizer makes them, read_at.
    token_ids, token_texts, words: per input, of its own tokens, without padding.
    """

    token_ids: tuple[tuple[int, ...], ...] = ()
