"""Stand-ins for the cache that transformers' attention asks for keys and values: they note, hand over, or leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Cache:
    """What a block's attention asks for the keys and values of the tokens before, its own being given."""

    def update(self, keys: Tensor, values: Tensor, *layer: Any, **more: Any) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def get_seq_length(self, *layer: Any) -> int:
        """How many tokens it holds."""
        keys: Tensor | None = getattr(self, "keys", None)
        return 0 if keys is None else keys.shape[-2]


class Noting(Cache):
    keys: Tensor | None = None
    values: Tensor | None = None

    def update(self, keys: Tensor, values: Tensor, *layer: Any, **more: Any) -> tuple[Tensor, Tensor]:
        self.keys, self.values = keys, values
        return keys, values


@dataclass
class Prefix(Cache):
    keys: Tensor
    values: Tensor

    def joined(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, keys], 2), torch.cat([self.values, values], 2)

    def update(self, keys: Tensor, values: Tensor, *layer: Any, **more: Any) -> tuple[Tensor, Tensor]:
        return self.joined(keys, values)


class Leaving(Cache):
    def update(self, keys: Tensor, values: Tensor, *layer: Any, **more: Any) -> tuple[Tensor, Tensor]:
        raise Known(keys, values)


class Known(Exception):
    """Keys and values are known, which is all that was asked."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
