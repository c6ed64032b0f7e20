"""Operations that torch.autocast computes in half precision, written out as it does them: cast, then compute.

Rules rebuild an operation from others, of which autocast knows some and not the rest; a float64 is never cast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrib.rules.call import each_tensor

_LOWERED = frozenset(
    {"conv", "conv_transpose", "linear", "matrix_product", "sum_and_product", "contraction", "attention"}
)


def is_lowered(kind: str | None, args: Any, kwargs: Any) -> bool:
    """Whether autocast is in force for an operation of this kind, on the device of its tensors."""
    if kind not in _LOWERED or not torch._C._is_any_autocast_enabled():
        return False
    return any(torch.is_autocast_enabled(tensor.device.type) for tensor in each_tensor((args, kwargs)))


def lowered(mode: TorchFunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
    """The call with its tensors cast, in the mode's sight and without autocast."""
    device = next(each_tensor((args, kwargs))).device.type
    dtype = torch.get_autocast_dtype(device)
    with mode, torch.autocast(device, enabled=False):
        return func(*_cast(tuple(args), dtype), **_cast(kwargs, dtype))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        lowers = value.is_floating_point() and value.dtype not in (dtype, torch.float64)
        return value.to(dtype) if lowers else value
    if isinstance(value, dict):
        return {name: _cast(part, dtype) for name, part in value.items()}
    return type(value)(_cast(part, dtype) for part in value) if type(value) in (list, tuple) else value
