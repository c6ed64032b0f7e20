"""Operations that torch offers whole, opened into those that the table has rules for. c: coefficient R/a from above."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrib.rules.call import Call
from attrib.rules.ruled import on_relevance


def contraction(call: Call) -> Any:
    """einsum of n factors that carry relevance: a share of R/n each; linear where one does."""
    equation = call.args[0]
    if not isinstance(equation, str):
        return NotImplemented
    operands = call.args[1] if isinstance(call.args[1], (list, tuple)) else call.args[1:]
    carrying = sum(operand.requires_grad for operand in operands)
    output = call.plain()
    if carrying > 1:
        on_relevance(output, lambda c: c / carrying)
    return output


def _normalize(call: Call) -> Tensor:
    p, axis, eps = call.argument(1, "p", 2.0), call.argument(2, "dim", 1), call.argument(3, "eps", 1e-12)
    length = torch.linalg.vector_norm(call.x, p, axis, keepdim=True).clamp_min(eps)
    normalized: Tensor = call.x / length
    return normalized


def _glu(call: Call) -> Tensor:
    signal, gate = call.x.chunk(2, call.argument(1, "dim", -1))
    return signal * torch.sigmoid(gate)


def _instance_norm(call: Call) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    defaults = (None, None, None, None, True, 0.1, 1e-5)
    given = {n: call.argument(i, n, d) for i, (n, d) in enumerate(zip(names, defaults, strict=True), start=1)}
    if given["use_input_stats"] or given["running_mean"] is None:
        return F.group_norm(call.x, call.x.shape[1], given["weight"], given["bias"], given["eps"])
    statistics = (given["running_mean"], given["running_var"], given["weight"], given["bias"])
    return F.batch_norm(call.x, *statistics, False, 0.0, given["eps"])


def _sum_of_product(call: Call) -> Tensor:
    first, second = call.argument(1, "tensor1"), call.argument(2, "tensor2")
    total: Tensor = call.x + first * second * call.kwargs.get("value", 1)
    return total


def _sum_of_quotient(call: Call) -> Tensor:
    numerator, denominator = call.argument(1, "tensor1"), call.argument(2, "tensor2")
    total: Tensor = call.x + numerator / denominator * call.kwargs.get("value", 1)
    return total


def _between(call: Call) -> Tensor:
    end, weight = call.argument(1, "end"), call.argument(2, "weight")
    mixed: Tensor = call.x + (end - call.x) * weight
    return mixed


def _moments(spread: Callable[..., Tensor]) -> Callable[[Call], tuple[Tensor, Tensor]]:
    def moments(call: Call) -> tuple[Tensor, Tensor]:
        axes = call.argument(1, "dim")
        keep = {"dim": axes, "keepdim": call.argument(3, "keepdim", False)} if axes is not None else {}
        return spread(*call.args, **call.kwargs), call.x.mean(**keep)

    return moments


def _bilinear(call: Call) -> Tensor:
    first, second, weight, bias = (call.argument(i, n) for i, n in enumerate(("input1", "input2", "weight", "bias")))
    pairs = (first.unsqueeze(-1) * second.unsqueeze(-2)).flatten(-2)
    return F.linear(pairs, weight.flatten(1), bias)


def _local_response_norm(call: Call) -> Tensor:
    """x/(k + α·mean x²)^β, the mean over neighbouring channels."""
    defaults = (("alpha", 1e-4), ("beta", 0.75), ("k", 1.0))
    size, x = call.argument(1, "size"), call.x
    alpha, beta, k = (call.argument(i, name, default) for i, (name, default) in enumerate(defaults, start=2))
    squares = F.pad(x.square().flatten(2).unsqueeze(1), (0, 0, size // 2, (size - 1) // 2))
    mean = F.avg_pool2d(squares, (size, 1), stride=1).reshape(x.shape)
    normed: Tensor = x / (mean * alpha + k) ** beta
    return normed


def _chain(call: Call) -> Tensor:
    product: Tensor = functools.reduce(torch.matmul, call.x)
    return product


_OPENED: dict[Any, Callable[[Call], Any]] = {
    F.normalize: _normalize,
    F.glu: _glu,
    F.instance_norm: _instance_norm,
    torch.addcmul: _sum_of_product,
    Tensor.addcmul: _sum_of_product,
    torch.addcdiv: _sum_of_quotient,
    Tensor.addcdiv: _sum_of_quotient,
    torch.lerp: _between,
    Tensor.lerp: _between,
    torch.var_mean: _moments(torch.var),
    torch.std_mean: _moments(torch.std),
    F.bilinear: _bilinear,
    F.local_response_norm: _local_response_norm,
    torch.linalg.multi_dot: _chain,
}


def opened(call: Call) -> Any:
    """The operation rebuilt from others, which the table's rules then see."""
    return call.engine.under(lambda: _OPENED[call.function](call))
