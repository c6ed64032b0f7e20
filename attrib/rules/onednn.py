"""Products of matrices with frozen weights by oneDNN, where that is quicker than what torch takes on a CPU.

torch gives float32 products to MKL, which on CPUs of other makers than its own leaves half of their arithmetic unused:
on an AMD EPYC with AVX-512, oneDNN takes .45 of MKL's time for the layers of BERT-base, to within 1e-6. torch reaches
oneDNN by itself for convolutions and for other number types only, so float32 layers are handed to it too, in the
forward and in the backward to the input. The choice hangs on shapes and the machine alone, never on a measurement:
the same run gives the same bits again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from attrib.rules.call import in_transform
from attrib.rules.picked import choosable, few, picked
from attrib.rules.ruled import frozen

# below this many multiplications the call itself costs more than they do; of few rows, reading the weights is all
ENOUGH = 2_000_000
_FEWEST_ROWS = 4


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x·weightᵀ + bias, (…, out), with a gradient for x alone."""
    return frozen(lambda x: computed(x, weight, bias), lambda c: _transposed(c, weight), x)


def _transposed(c: Tensor, weight: Tensor) -> Tensor:
    return picked(c, weight) if few(c, weight) else product(c, weight.t(), None)


def computed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if _rows(x) < _FEWEST_ROWS:
        return linear(x, weight, bias)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
    return found


def suits(x: Any, weight: Any, bias: Any) -> bool:
    """Whether it is a large float32 product on a CPU whose weights are constant."""
    if not (is_plain(x) and is_constant(weight) and (bias is None or is_constant(bias))):
        return False
    if x.dim() < 2 or weight.dim() != 2 or (bias is not None and bias.dim() != 1):
        return False
    large = _rows(x) * weight.numel() >= ENOUGH if _rows(x) >= _FEWEST_ROWS else choosable(weight)
    return large and x.shape[-1] == weight.shape[1] and usable()


def _rows(x: Tensor) -> int:
    return x.numel() // max(1, x.shape[-1])


def is_plain(value: Any) -> bool:
    # a subclass computes in its own way
    return type(value) in (Tensor, torch.nn.Parameter) and value.dtype == torch.float32 and value.device.type == "cpu"


def is_constant(value: Any) -> bool:
    return is_plain(value) and not value.requires_grad


def usable() -> bool:
    """Whether this torch has the operation, for a CPU on which it was measured to be quicker, and can take it here."""
    own = torch.backends.mkldnn
    return (
        own.is_available()
        and bool(own.enabled)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and not torch.is_autocast_enabled("cpu")
        and not in_transform()  # its tensors say that they require no gradient, and the operation has none
    )
