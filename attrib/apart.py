"""Whether a model answers a sample in a batch as it answers it alone, which chunks and batched steps rely on.

Most do. BatchNorm without running statistics and decisions taken over a whole batch do not; nor does a model that
draws random numbers, as dropout left on does, or keeps what it saw, as observers do, answer twice the same.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attrib.outputs import agree, logits_of, rounding

Forward = Callable[[Tensor, dict[str, Tensor]], Any]
Oddity = Literal["none", "mixes", "draws", "remembers"]
NOTES: dict[Oddity, str] = {
    "none": "",
    "mixes": "the model's answer to one sample depends on the others of its batch: each row was given to it alone",
    "remembers": "the model keeps something of what it is shown, and would answer otherwise afterwards: each pass was "
    "given a single row, and the model as it stands",
    "draws": "the model draws random numbers in its forward: its score and this map differ from run to run",
}
_known: weakref.WeakKeyDictionary[nn.Module, dict[Any, Oddity]] = weakref.WeakKeyDictionary()


def oddity_of(module: nn.Module, twin: Callable[[], Forward], x: Tensor, extra: dict[str, Tensor]) -> Oddity:
    """Four forwards of the first sample, in one of them on both sides of its opposite, three times as large.

    Remembered per module and shape. twin: makes the forward of a twin of `module`; x: (batch, …); extra: what else
    that takes, a row per sample.
    """
    key = (tuple(x.shape[1:]), x.dtype, x.device.type, module.training)
    known = _known.setdefault(module, {})
    if key not in known:
        known[key] = _found(twin, x[:1].detach(), {name: value[:1] for name, value in extra.items()})
    return known[key]


@torch.no_grad()
def _found(twin: Callable[[], Forward], x: Tensor, extra: dict[str, Tensor]) -> Oddity:
    of_three = {name: torch.cat([value] * 3) for name, value in extra.items()}
    with torch.random.fork_rng(devices=[]):
        try:
            alone, again = (logits_of(twin()(x, extra)) for _ in range(2))
            forward = twin()
            first, _, last = logits_of(forward(torch.cat([x, -3 * x, x]), of_three)).split(len(alone))
            afterwards = logits_of(forward(x, extra))
        except Exception:  # the module is anybody's code; what fails here fails again where it is told
            return "none"
    share = rounding(x.dtype)
    if not agree(alone, again, share):
        return "draws"
    if not agree(alone, afterwards, share):
        return "remembers"
    # the last too: what goes on from one sample to the next leaves the first alone
    return "none" if agree(alone, first, share) and agree(alone, last, share) else "mixes"
