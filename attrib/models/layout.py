"""Whether a model computes the same from pictures whose channels lie innermost in memory, which rules run faster on.

Most do. `y.view(batch, -1)` behind a convolution and `as_strided` read memory in its usual order: the first fails on
another, the second reads other numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attrib.outputs import agree, logits_of, rounding

_known: weakref.WeakKeyDictionary[nn.Module, dict[Any, bool]] = weakref.WeakKeyDictionary()


def takes_channels_last(module: nn.Module, forward: Callable[[Tensor], Any], x: Tensor) -> bool:
    """Two forwards of the first sample, in both layouts; remembered on behalf of `module` per shape.

    forward: what a twin of `module` returns; x: (batch, channel, height, width).
    """
    key = (tuple(x.shape[1:]), x.dtype, x.device.type)
    known = _known.setdefault(module, {})
    if key not in known:
        known[key] = _agrees(forward, x[:1].detach())
    return known[key]


def _agrees(forward: Callable[[Tensor], Any], x: Tensor) -> bool:
    with torch.no_grad():
        try:
            usual = logits_of(forward(x.clone(memory_format=torch.contiguous_format)))
            packed = logits_of(forward(x.clone(memory_format=torch.channels_last)))
        except Exception:  # the module is anybody's code; what fails in both layouts fails again where it is told
            return False
    return agree(packed, usual, rounding(x.dtype))
