"""Rules for activations, products, sums with constants and normalisation. c: coefficient R/a from above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attrib.rules.call import Call, carries, carries_relevance
from attrib.rules.homogeneous import is_marked, marked
from attrib.rules.ledger import Ledger, booking, relevance_of
from attrib.rules.precision import widest
from attrib.rules.ruled import on_relevance, ruled


def as_gradient(call: Call) -> Any:
    """The ordinary gradient: right for what is positively homogeneous (ReLU, max-pooling)."""
    return call.plain()


def identity(call: Call) -> Any:
    """R_z = R_y · (f(z) − f(0))/f(z): relevance passes an activation; what f(0) ≠ 0 adds is booked as offset.

    In gradient form c_z = c_y (f(z) − f(0))/z. With f(0) = 0 this is zennit's Pass and AttnLRP's identity rule.
    """
    ledger = call.engine.ledger

    function, settings = out_of_place(call)

    def compute(z: Tensor) -> Any:
        wide = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
        offset, slope = _at_zero(function, settings, z.device)
        y = function(z, **settings)
        size = wide.abs()
        ratio = (y.to(wide.dtype) - offset) / wide
        if bool(size.amin() < _NEAR):
            ratio.masked_fill_(size < _NEAR, slope)
        # a masked place, z = −∞, hands nothing back: all of its y is the mask's
        masked = size.isinf() if offset != 0 else None
        at_zero = offset if masked is None or not bool(masked.any()) else torch.where(masked, y, offset)
        if call.in_place:
            y = z.copy_(y)

        def pull(c: Tensor, ratio: Tensor) -> Tensor:
            if offset != 0:
                ledger.absorb("activation offset", at_zero * c)
            return (c * ratio).to(c.dtype)

        return y, (ratio,), pull

    return ruled(compute, call.x)


_NEAR = 1e-6


def out_of_place(call: Call) -> tuple[Any, dict[str, Any]]:
    """The function that computes the same without changing its input, and its other arguments by name."""
    function, name = call.function, getattr(call.function, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        function = getattr(torch.nn.functional, name[:-1], None) or getattr(torch, name[:-1])
    settings = {k: v for k, v in call.kwargs.items() if k not in ("inplace", "input")}
    rest = call.args[1:]
    return (lambda z, **settings: function(z, *_without_inplace(name, rest), **settings)), settings


def _without_inplace(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The positional arguments without a trailing `inplace`, which only bools are."""
    return arguments[:-1] if arguments and isinstance(arguments[-1], bool) else arguments


def _at_zero(function: Any, settings: dict[str, Any], device: torch.device) -> tuple[float, float]:
    """f(0), and the slope of f at 0 (the mean of both sides where f has a kink)."""
    step = 1e-4
    points = torch.tensor([0.0, step, -step], dtype=widest(device), device=device)
    at, above, below = function(points, **settings).tolist()
    return at, (above - below) / (2 * step)


def gate(call: Call) -> Any:
    """`identity`, and the output is marked: a product takes it as a constant, all relevance goes to the signal.

    Signal takes all — Arras et al. 2017, for squeeze-and-excitation and hand-written x·σ(z); in CP-LRP for act(gate).
    """
    return marked(identity(call))


def product(call: Call) -> Any:
    """R_a = R_b = R/2 where both factors carry relevance (uniform rule); a gate or a constant gets none."""
    factors = [a for a in (call.x, call.argument(1, "other")) if carries(a)]
    if len(factors) < 2:
        return call.plain()
    gates = [is_marked(factor) for factor in factors]
    if any(gates) and not all(gates):
        kept = [f.detach() if is_gate else f for f, is_gate in zip(factors, gates, strict=True)]
        return call.function(*kept, *call.args[2:])
    output = call.plain()
    on_relevance(output, lambda c: c / 2)
    return output


def quotient(call: Call) -> Any:
    """The denominator counts as a constant scale: all relevance goes to the numerator."""
    denominator = call.argument(1, "other")
    if carries(denominator):
        output = call.function(call.x, denominator.detach(), *call.args[2:], **call.kwargs)
    else:
        output = call.plain()
    return marked(output) if is_marked(call.x) else output


@dataclass(frozen=True)
class SumWithConstant:
    """Sums hand relevance on by their gradient; what a constant summand carries is booked as bias.

    sign: of the second argument (−1 for a difference).
    """

    sign: float = 1.0

    def __call__(self, call: Call) -> Any:
        first, second = call.x, call.argument(1, "other")
        reflected = getattr(call.function, "__name__", "") in ("__rsub__", "rsub")
        signs = (-1.0, 1.0) if reflected else (1.0, self.sign * call.kwargs.get("alpha", 1.0))
        output = call.plain()
        if is_marked(first) and not carries_relevance((second,), {}):
            marked(output)
        for value, sign in ((first, signs[0]), (second, signs[1])):
            if not carries(value) and not (isinstance(value, (int, float)) and value == 0):
                amount = finite(value.detach()) * sign if isinstance(value, Tensor) else value * sign
                on_relevance(output, booking(call.engine.ledger, "bias", amount))
        return output


def concatenation(call: Call) -> Any:
    """Parts keep their relevance; what a constant part (a class token) carries is booked."""
    parts, axis = call.argument(0, "tensors"), call.argument(1, "dim", 0)
    output = call.plain()
    start = 0
    for part in parts:
        if part.numel() == 0:  # of any shape, says torch.cat: the empty cache of a language model
            continue
        length = part.shape[axis]
        if not carries(part) and part.is_floating_point():
            on_relevance(output, _booking_slice(call.engine.ledger, part.detach(), axis, start))
        start += length
    return output


def _booking_slice(ledger: Ledger, part: Tensor, axis: int, start: int) -> Any:
    def book(c: Tensor) -> None:
        ledger.absorb("constant tokens", relevance_of(part, c.narrow(axis, start, part.shape[axis])))

    return book


def finite(constant: Tensor) -> Tensor:
    """A mask's −∞ carries nothing: what it is added to gets coefficient 0."""
    return constant.nan_to_num(0.0, 0.0, 0.0) if constant.is_floating_point() else constant


def rms_norm(call: Call) -> Any:
    """y = x/rms · w with rms a constant: R_x = R_y."""
    shape = tuple(call.argument(1, "normalized_shape"))
    weight, eps = call.argument(2, "weight"), call.argument(3, "eps")
    axes = tuple(range(-len(shape), 0))

    def compute(x: Tensor) -> Any:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        eps_used = torch.finfo(x.dtype).eps if eps is None else eps
        scale = torch.rsqrt(wide.square().mean(axes, keepdim=True) + eps_used)
        y = torch.rms_norm(x, shape, weight, eps)
        return y, (scale,), lambda c, scale: ((c if weight is None else c * weight) * scale).to(c.dtype)

    return ruled(compute, call.x)


def affine_norm(call: Call) -> Any:
    """BatchNorm in eval mode as the affine map it is, under the ε-rule: its shift is booked as bias."""
    affine = batch_norm_affine(call)
    if affine is None:
        return NotImplemented
    _, shift = affine
    output = call.plain()
    shape = (1, -1, *[1] * (output.dim() - 2))
    on_relevance(output, booking(call.engine.ledger, "bias", shift.reshape(shape)))
    return output


def batch_norm_affine(call: Call) -> tuple[Tensor, Tensor] | None:
    """(scale, shift), one per channel: y = scale·x + shift; None where the batch's own statistics are used."""
    of = _TORCH_BATCH_NORM if call.function is torch.batch_norm else _F_BATCH_NORM
    names = ("running_mean", "running_var", "weight", "bias")
    mean, variance, weight, bias = (call.argument(of[name], name) for name in names)
    eps = call.argument(7, "eps", 1e-5)
    if mean is None or variance is None or call.argument(5, "training", False):
        return None
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


_F_BATCH_NORM = {"running_mean": 1, "running_var": 2, "weight": 3, "bias": 4}
_TORCH_BATCH_NORM = {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4}


def layer_norm(call: Call) -> Any:
    """y = (x − mean)/std · w + b with std a constant (Ali et al. 2022); b's share is booked as bias."""
    shape = tuple(call.argument(1, "normalized_shape"))
    weight, bias, eps = call.argument(2, "weight"), call.argument(3, "bias"), call.argument(4, "eps", 1e-5)
    axes = tuple(range(-len(shape), 0))
    ledger = call.engine.ledger

    def compute(x: Tensor) -> Any:
        y, _, scale = torch.native_layer_norm(x, shape, weight, bias, eps)
        if x.dtype in (torch.float16, torch.bfloat16):
            scale = torch.rsqrt(x.float().var(axes, unbiased=False, keepdim=True) + eps)

        def pull(c: Tensor, scale: Tensor) -> Tensor:
            if bias is not None:
                ledger.absorb("bias", c * bias)
            inner = c if weight is None else c * weight
            centred = inner - inner.mean(axes, keepdim=True)
            return (centred * scale).to(c.dtype)

        return y, (scale,), pull

    return ruled(compute, call.x)


def group_norm(call: Call) -> Any:
    """As `layer_norm`, within each group of channels."""
    groups, eps = call.argument(1, "num_groups"), call.argument(4, "eps", 1e-5)
    weight, bias = call.argument(2, "weight"), call.argument(3, "bias")
    ledger = call.engine.ledger

    def compute(x: Tensor) -> Any:
        per_channel = (1, -1, *[1] * (x.dim() - 2))
        scale = torch.rsqrt(x.reshape(x.shape[0], groups, -1).var(2, unbiased=False, keepdim=True) + eps)

        def pull(c: Tensor, scale: Tensor) -> Tensor:
            if bias is not None:
                ledger.absorb("bias", c * bias.view(per_channel))
            inner = (c if weight is None else c * weight.view(per_channel)).reshape(c.shape[0], groups, -1)
            return ((inner - inner.mean(2, keepdim=True)) * scale).reshape(c.shape)

        return torch.nn.functional.group_norm(x, groups, weight, bias, eps), (scale,), pull

    return ruled(compute, call.x)
