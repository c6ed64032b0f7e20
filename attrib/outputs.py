"""What a model returned: where its logits are, one row of class scores per sample, and whether two answers agree."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attrib.errors import UnsupportedModel


def logits_of(outputs: Any) -> Tensor:
    """The logits in whatever a model returned: a tensor, a ModelOutput, a dict or a tuple."""
    if isinstance(outputs, Tensor):
        return outputs
    for key in ("logits", "out", "output", "prediction"):
        value = outputs.get(key) if isinstance(outputs, dict) else getattr(outputs, key, None)
        if isinstance(value, Tensor):
            return value
    values = outputs.values() if isinstance(outputs, dict) else outputs
    if isinstance(values, (tuple, list)) or isinstance(outputs, dict):
        for value in values:
            if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0:  # a loss has none
                return value
    raise UnsupportedModel(
        f"the model returned {type(outputs).__name__} without a tensor of logits; "
        "return a (batch, classes) tensor, or a dict or object with 'logits'"
    )


def class_scores(outputs: Any) -> Tensor:
    """(batch, classes) logits of the output; of dense outputs their sum over positions."""
    logits = logits_of(outputs)
    if logits.dim() < 2 or not logits.shape[1]:
        raise UnsupportedModel(
            f"the model returned logits of shape {tuple(logits.shape)}; (batch, classes) is needed, "
            "or give a callable target that turns the output into (batch,) numbers"
        )
    return logits if logits.dim() == 2 else logits.flatten(2).sum(2)


_ROUNDING = {torch.float64: 1e-6, torch.float16: 0.05, torch.bfloat16: 0.1}


def rounding(dtype: torch.dtype) -> float:
    """The share of a sample's largest logit by which two ways of computing it in `dtype` may differ."""
    return _ROUNDING.get(dtype, 1e-3)


def agree(found: Tensor, expected: Tensor, share: float) -> bool:
    """Whether two answers (batch, …) differ by no more than `share` of the largest number of each sample.

    What is NaN in both is the same: that a model fails is told elsewhere.
    """
    if found.shape != expected.shape or not found.numel():
        return found.shape == expected.shape
    rows = len(found) if found.dim() else 1
    found, expected = found.float().reshape(rows, -1), expected.float().reshape(rows, -1)
    same = (found == expected) | (found.isnan() & expected.isnan())
    difference = (found - expected).abs().masked_fill(same, 0.0).amax(1)
    return bool((difference <= share * expected.abs().nan_to_num(0.0).amax(1)).all())
