"""What an operation or a leaf module makes of its tensors: a view, a multiple, a product with weights, attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["source", "sum", "alias", "scaled", "matrix", "pointwise", "attention", "gated", "module", "other"]

_SAME_NUMBERS = frozenset({
    "view", "reshape", "view_as", "contiguous", "clone", "to", "float", "type", "type_as", "dropout", "flatten",
    "unflatten", "squeeze", "unsqueeze", "alias",
})  # fmt: skip


@dataclass(frozen=True)
class Heads:
    """Of one attention: how many, and which dimension of its node they are, counted from behind."""

    count: int
    axis: int
    weights: tuple[int, ...] = ()  # nodes that a fused one makes its weights from; of others, it is these itself


def kind_of(module: nn.Module, x: Tensor | None, output: Tensor) -> Kind:
    parameters = [*module._parameters.values(), *module._buffers.values()]
    if any(isinstance(p, Tensor) and p.dim() >= 2 for p in parameters):
        weight = getattr(module, "weight", None)
        plain = isinstance(weight, Tensor) and (weight.dim() == 2 or (weight.dim() == 3 and weight.shape[2] == 1))
        return "matrix" if plain and x is not None and x.is_floating_point() else "module"
    return "pointwise" if x is not None and x.shape == output.shape else "module"


def is_alias(func: Any, tensor: Tensor, given: list[Tensor]) -> bool:
    name = getattr(func, "__name__", "")
    if name == "__getitem__":  # all of it
        return tensor.shape == given[0].shape and torch.equal(tensor, given[0])
    if name in ("permute", "transpose"):  # channels in front of tokens, or back
        return tensor.dim() == 3 and tensor.shape[0] == given[0].shape[0] == 1 and tensor.shape[1] == given[0].shape[2]
    return name in _SAME_NUMBERS and tensor.numel() == given[0].numel()


def factor_of(operation: str, args: tuple[Any, ...]) -> float | None:
    """What `args` say a tensor is multiplied by; None where that is not one number."""
    number = next((number for arg in args[:2] if (number := _number(arg)) is not None), None)
    if number is None or operation == "product":
        return number
    return 1 / number if isinstance(args[0], Tensor) and args[0].requires_grad and number else None


def _number(value: Any) -> float | None:
    """The value where it is a number, or a constant tensor of nothing but that number (a mask of ones)."""
    if isinstance(value, Tensor) and not value.requires_grad and value.numel():
        first = value.reshape(-1)[0]
        return float(first) if bool((value == first).all()) else None
    return float(value) if isinstance(value, (int, float)) else None


def heads_of(operation: str | None, tensor: Tensor, given: list[Tensor], tokens: int) -> Heads | None:
    """The heads the operation attends with; None where it is no attention. The batch is one."""
    if operation == "attention":  # not of each position alone, over what layers have made there
        return Heads(int(given[0].shape[-3]), -3) if given[0].shape[-2] >= tokens else None
    if operation != "softmax" or tensor.dim() not in (3, 4) or tensor.shape[-2] == 1:
        return None
    if bool(((tensor.sum(-1) - 1).abs() > 0.1).any()):  # over another dimension: of windows, say (DeepSeek-V4)
        return None
    # one more place to look at than there are tokens (sinks), or windows of them too
    more = tensor.shape[-1] - tensor.shape[-2]
    most = 0 if tensor.dim() == 3 else more if tensor.shape[-2] == tokens else 1
    if tensor.shape[-2] >= tokens and 0 <= more <= most:
        return Heads(tensor.shape[:-2].numel(), -3)
    if tensor.dim() == 4 and tensor.shape[0] == 1 and tensor.shape[1] >= tokens:  # each token its window (Longformer)
        return Heads(int(tensor.shape[2]), -2)
    return None


def changes_in_place(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or (name.startswith("__i") and name != "__init__")
