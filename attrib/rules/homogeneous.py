"""Rules for roots, powers and lengths, and the mark that tells a scale from a signal. c: coefficient R/a from above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attrib.rules.call import Call
from attrib.rules.ruled import on_relevance


@dataclass(frozen=True)
class Homogeneous:
    """f(λx) = λᵏ f(x), so x·∂f/∂x = k f(x) (Euler) and R_x = R_y takes the gradient 1/k times.

    The output is marked as a scale: a product hands its relevance to the other factor (√var in a norm), while read
    as a signal (an L2-pooled feature) it passes its relevance on.
    """

    degree: float

    def __call__(self, call: Call) -> Any:
        return scaled(call.plain(), self.degree)


def scaled(output: Tensor, degree: float) -> Tensor:
    """`output`, marked as a scale, handing back 1/degree of its gradient."""
    if degree != 1:
        on_relevance(output, lambda c: c / degree)
    return marked(output)


def power(call: Call) -> Any:
    """x^k with k > 0 is homogeneous; with k < 0 it scales a norm and counts as a constant."""
    exponent = call.argument(1, "exponent", 2)
    if not isinstance(exponent, (int, float)) or exponent == 0 or not isinstance(call.x, Tensor):
        return NotImplemented
    return call.plain().detach() if exponent < 0 else scaled(call.plain(), float(exponent))


def marked(output: Tensor) -> Tensor:
    """`output`, marked as a gate or scale: in a product all relevance goes to the other factor."""
    output._attrib_gate = True  # type: ignore[attr-defined]
    return output


def is_marked(value: Any) -> bool:
    return getattr(value, "_attrib_gate", False)
