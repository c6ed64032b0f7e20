"""DeepLIFT's rescale rule: multipliers Δy/Δz between an input and its baseline.

The baseline runs first, without gradients, and leaves behind what went into every nonlinearity; the input's
pass then meets them in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrib.errors import UnsupportedModel
from attrib.rules.affine import Affine, is_packed, packed
from attrib.rules.elementwise import as_gradient, out_of_place
from attrib.rules.engine import Call, Engine, Rules, ruled
from attrib.rules.linear import Epsilon, fold_batch_norm
from attrib.rules.vocabulary import ACTIVATIONS, KIND
from attrib.rules.weights import WeightCache

_KINDS = ACTIVATIONS | {"max_pool"}
_CLOSE = 1e-10  # |Δz| below which the derivative stands for Δy/Δz, as in captum


class BaselineRecorder(TorchFunctionMode):
    """Keeps a copy of what goes into every nonlinearity."""

    def __init__(self, cache: WeightCache) -> None:
        super().__init__()
        self.cache = cache
        self.inputs: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = KIND.get(func)
        if kind in _KINDS:
            value = args[0] if args else kwargs["input"]
            self.inputs.append(value.detach().clone())
        if kind == "conv":
            # as the input's pass computes it, so that both lie in memory alike
            layer = Affine.of(Call(cast(Engine, self), kind, func, tuple(args), kwargs), self.cache)
            if layer is not None:
                return layer.plain(args[0] if args else kwargs["input"])
        return func(*args, **kwargs)


class RescaleEngine(Engine):
    """An engine that hands each nonlinearity what went into it on the baseline."""

    def __init__(self, recorded: list[Tensor], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recorded: Iterator[Tensor] = iter(recorded)
        self.at_baseline: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if KIND.get(func) in _KINDS:
            self.at_baseline = next(self._recorded, None)
        return super().__torch_function__(func, types, args, kwargs)


def _baseline_of(call: Call) -> Tensor:
    recorded = call.engine.at_baseline if isinstance(call.engine, RescaleEngine) else None
    if recorded is None or recorded.shape[1:] != call.x.shape[1:]:
        raise UnsupportedModel(
            f"the model takes another path on the baseline than on the input (at {call.engine.path!r}), so DeepLIFT "
            "cannot pair their activations; choose a baseline nearer to the input, or integrated_gradients"
        )
    return recorded


def rescale(call: Call) -> Any:
    """m = Δy/Δz; where |Δz| < 1e-10, f′(z) — Shrikumar et al. 2017, rescale rule."""
    reference = _baseline_of(call)
    function, settings = out_of_place(call)

    def compute(z: Tensor) -> Any:
        step = z - reference
        y = function(z, **settings)
        slope = z.sign().clamp_min_(0) if call.kind == "relu" else _slope(function, settings, z)
        multiplier = _quotient(y - function(reference, **settings), step, slope)
        return (z.copy_(y) if call.in_place else y), (multiplier,), torch.mul

    return ruled(compute, call.x)


def _quotient(difference: Tensor, step: Tensor, limit: Tensor) -> Tensor:
    """difference/step, going over into `limit` where |step| falls below 1e-10; without masks, slow on a CPU."""
    return (difference * step).add_(limit, alpha=_CLOSE**2).div_((step * step).add_(_CLOSE**2))


def _slope(function: Any, settings: dict[str, Any], z: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = z.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(function(leaf, **settings).sum(), leaf)
    return slope


_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def rescale_max_pool(call: Call) -> Any:
    """Δy goes to the input's maximum where y ≥ y₀, else to the baseline's; over Δz — captum's cross-max rule."""
    n = call.x.dim() - 2
    if call.argument(6, "return_indices", False) or f"max_pool{n}d" not in torch.overrides.resolve_name(call.function):
        return NotImplemented
    reference = _baseline_of(call)
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    settings = {k: call.argument(i + 1, k) for i, k in enumerate(names) if call.argument(i + 1, k) is not None}

    def compute(z: Tensor) -> Any:
        # contiguous: among equal maxima the kernel for channels_last picks another one
        y, where = _POOLS[n](z.contiguous(), **settings, return_indices=True)
        y0, where0 = _POOLS[n](reference.contiguous(), **settings, return_indices=True)
        difference, taken = y - y0, torch.where(y >= y0, where, where0)

        def pull(c: Tensor, z: Tensor) -> Tensor:
            routed = _scattered(c * difference, taken, z)
            step = z - reference
            return _quotient(routed, step, _scattered(c, where, z))

        return (packed(y) if is_packed(z) else y), (z,), pull

    return ruled(compute, call.x)


def _scattered(values: Tensor, where: Tensor, like: Tensor) -> Tensor:
    flat = torch.zeros_like(like).flatten(2)
    return flat.scatter_add_(2, where.flatten(2), values.flatten(2)).view_as(like)


def only_one_carries(call: Call) -> Any:
    """Products and quotients are linear while one operand is constant; DeepLIFT has no rule for two."""
    other = call.argument(1, "other")
    both = isinstance(other, Tensor) and other.requires_grad and isinstance(call.x, Tensor) and call.x.requires_grad
    denominator = call.kind == "quotient" and isinstance(other, Tensor) and other.requires_grad
    return NotImplemented if both or denominator else as_gradient(call)


_LINEAR = ("conv_transpose", "sum_of_two", "difference")

RESCALE = Rules(
    dict.fromkeys(ACTIVATIONS, rescale)
    | {"max_pool": rescale_max_pool}
    | dict.fromkeys(("conv", "linear"), Epsilon(0.0))
    | {"batch_norm": fold_batch_norm}
    | dict.fromkeys(_LINEAR, as_gradient)
    | dict.fromkeys(("product", "quotient", "matrix_product"), only_one_carries),
    conserving=True,
    harmless=frozenset({as_gradient, only_one_carries}),
)
