"""What a model returned: where its logits are, and one row of class scores per sample."""

from __future__ import annotations

from typing import Any

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
    if logits.dim() < 2:
        raise UnsupportedModel(
            f"the model returned logits of shape {tuple(logits.shape)}; (batch, classes) is needed, "
            "or give a callable target that turns the output into (batch,) numbers"
        )
    return logits if logits.dim() == 2 else logits.flatten(2).sum(2)
