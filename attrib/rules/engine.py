"""The engine: a rule table in force inside one `with`, applied by one TorchFunctionMode.

Relevance flows in gradient form: what goes backward is c = R/a, so that relevance at any tensor a is a·c.
A rule is a function `rule(call) -> output`, or NotImplemented where it does not fit. An operation without a
rule keeps its gradient, and the engine records whether that is right (linear) or not (uncovered).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrib.errors import UncoveredOperation
from attrib.rules.functions import autograd_functions
from attrib.rules.precision import wide
from attrib.rules.table import Rule as Rule
from attrib.rules.table import Rules as Rules
from attrib.rules.vocabulary import ACTIVATIONS, IS_LINEAR, KIND, OUT_OF_PLACE, name_of
from attrib.rules.weights import OnePass, WeightCache

Pull = Callable[..., Any]


@dataclass(frozen=True)
class Call:
    """One torch function call that a rule answers."""

    engine: Engine
    kind: str
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def x(self) -> Tensor:
        """The first argument."""
        first: Tensor = self.args[0] if self.args else next(iter(self.kwargs.values()))
        return first

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def plain(self) -> Any:
        """The call as the model wrote it, with its ordinary gradient."""
        return self.function(*self.args, **self.kwargs)

    @property
    def in_place(self) -> bool:
        name = getattr(self.function, "__name__", "")
        dunder = name.startswith("__i") and name != "__init__"
        return bool(self.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__")) or dunder


class RuleFunction(torch.autograd.Function):
    """An operation whose backward is a rule: forward(x…) -> value, saved tensors, and pull(grad, *saved)."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., tuple[Tensor, Sequence[Tensor], Pull]], *xs: Tensor) -> Tensor:
        value, saved, ctx.pull = compute(*xs)
        if any(value is x for x in xs):
            ctx.mark_dirty(value)
        elif value._is_view():  # of which autograd would forbid any change in place
            value = value.clone()
        ctx.save_for_backward(*saved)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        # on the CPU the backward runs in the calling thread, where the mode is still in force
        with torch._C.DisableTorchFunction():
            pulled = ctx.pull(grads[0], *ctx.saved_tensors)
        return (None, *pulled) if isinstance(pulled, tuple) else (None, pulled)


def ruled(compute: Callable[..., tuple[Tensor, Sequence[Tensor], Pull]], *xs: Tensor) -> Tensor:
    """Apply a RuleFunction: `compute(*xs)` gives (value, tensors to save, pull(grad, *saved) -> grads of xs)."""
    output: Tensor = RuleFunction.apply(compute, *xs)
    return output


class Ledger:
    """Where relevance goes that does not reach the input: name → one amount per sample."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.amounts: dict[str, Tensor] = {}

    def absorb(self, name: str, amounts: Tensor) -> None:
        """Add relevance swallowed by one operation; amounts: (rows, …), rows a multiple of the batch."""
        if amounts.shape[0] % self.batch != 0:
            amounts = amounts.sum().expand(self.batch) / self.batch
        total = wide(amounts.reshape(self.batch, -1).sum(1))
        self.amounts[name] = self.amounts[name] + total if name in self.amounts else total


class Engine(TorchFunctionMode):
    """A rule table in force, for one thread and one twin.

    twin: the shadow of the model, whose module paths name what is uncovered.
    inputs: the shape of what is explained, batch first.
    ledger: where rules book what they absorb. deposits: unit tensors, shaped like the inputs, whose gradients
        are the relevance that first-layer rules put on the input directly.
    """

    def __init__(
        self, rules: Rules, twin: nn.Module, inputs: torch.Size, cache: WeightCache, strict: bool = False
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.rules = rules
        self.cache = cache
        self.weights = OnePass(cache)
        self.strict = strict
        self.ledger = Ledger(inputs[0])
        self.deposits: list[Tensor] = []
        self.counts: dict[str, dict[str, int]] = {"ruled": {}, "linear": {}, "uncovered": {}}
        self.first_done = False
        self._twin = twin

    @cached_property
    def _paths(self) -> dict[int, str]:
        # when somebody asks: the walk takes a hundredth of a short text's pass
        return {id(module): path for path, module in self._twin.named_modules()}

    @property
    def path(self) -> str:
        """The module that is running, as in named_modules; "" for the model itself.

        Read from the call stack, so that nobody pays for it who does not ask.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            path = self._paths.get(id(frame.f_locals.get("self")))
            if path is not None:
                return path
            frame = frame.f_back
        return ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, kind = kwargs or {}, KIND.get(func)
        aside = OUT_OF_PLACE.get(func)
        if aside is not None and args[0]._is_view() and torch.is_grad_enabled() and carries_relevance(args, kwargs):
            # nobody's gradient passes the view that comes out: a rule or a hook on it would see nothing
            before = args[0].clone()  # which the backward may need after the change
            return args[0].copy_(self._answered(kind, aside, (before, *args[1:]), kwargs))
        return self._answered(kind, func, args, kwargs)

    def _answered(self, kind: str | None, func: Any, args: Any, kwargs: Any) -> Any:
        if kind is None:
            return self._unruled(func, args, kwargs, "linear" if func in IS_LINEAR else "uncovered")
        if not torch.is_grad_enabled() or not carries_relevance(args, kwargs):
            return func(*args, **kwargs)
        rule = self._rule_for(kind)
        output = NotImplemented if rule is None else rule(Call(self, kind, func, tuple(args), kwargs))
        if output is NotImplemented:
            return self._unruled(func, args, kwargs, self._verdict(kind))
        self._count("linear" if rule in self.rules.harmless else "ruled", name_of(func))
        return output

    def watch_functions(self, scores: Tensor) -> None:
        """Count the model's own autograd functions, inside which no mode can see, as uncovered."""
        if self.cache.functions is None:
            self.cache.functions = autograd_functions(scores)
        self.report_functions(self.cache.functions)

    def report_functions(self, names: tuple[str, ...]) -> None:
        """Count custom autograd functions as uncovered; raise UncoveredOperation where that is asked for."""
        for name in names:
            if self.strict:
                raise _uncovered(name, "")
            self._count("uncovered", f"{name}, a custom autograd function,")

    def under(self, compute: Callable[[], Any]) -> Any:
        """`compute()` with the table in force, for rules that rebuild an operation from others."""
        with self:
            return compute()

    def _rule_for(self, kind: str) -> Rule | None:
        path = self.path if self.rules.scoped else ""
        if kind in ("conv", "linear", "conv_transpose") and not self.first_done:
            self.first_done = True
            return self.rules.find("first", path) or self.rules.find(kind, path)
        return self.rules.find(kind, path)

    def _verdict(self, kind: str) -> str:
        if self.rules.conserving:
            return "uncovered"
        return "uncovered" if kind in ACTIVATIONS else "linear"

    def _unruled(self, func: Any, args: Any, kwargs: Any, verdict: str) -> Any:
        if not torch.is_grad_enabled() or not carries_relevance(args, kwargs):
            return func(*args, **kwargs)
        output = func(*args, **kwargs)
        if not carries_relevance((output,), {}):
            return output
        if verdict == "uncovered" and not self.rules.conserving and KIND.get(func) not in ACTIVATIONS:
            return output
        if verdict == "linear":
            self._count(verdict, name_of(func))
            if args and getattr(args[0], "_attrib_gate", False) and isinstance(output, Tensor):
                output._attrib_gate = True  # type: ignore[attr-defined]  # a gate reshaped is a gate
        else:
            self._watch(output, name_of(func), self.path)
        return output

    def _watch(self, output: Any, name: str, path: str) -> None:
        """Report the operation once relevance really comes back through it: a detached norm's square is harmless."""
        seen: list[bool] = []

        def met(c: Tensor) -> None:
            if seen:
                return
            seen.append(True)
            if self.strict:
                raise _uncovered(name, path)
            self._count("uncovered", f"{name} in {path or 'the model'}")

        for part in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(part, Tensor) and part.requires_grad:
                part.register_hook(met)

    def _count(self, verdict: str, name: str) -> None:
        counts = self.counts[verdict]
        counts[name] = counts.get(name, 0) + 1


def engine_in_force() -> Engine | None:
    """The innermost engine of this thread, if one is in force."""
    modes = torch.overrides._get_current_function_mode_stack()
    return next((mode for mode in reversed(modes) if isinstance(mode, Engine)), None)


def _uncovered(name: str, path: str) -> UncoveredOperation:
    where = f"module {path!r}" if path else "the model's own forward"
    return UncoveredOperation(
        f"no rule covers {name!r} in {where}; use strict=False to take its plain gradient and see it in "
        f"result.coverage, or a rule table that has it: rules | Rules({{kind: rule}})"
    )


def carries_relevance(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether any tensor among the arguments requires gradients: in a twin that means it carries relevance."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            if value.requires_grad:
                return True
        elif isinstance(value, (list, tuple)) and carries_relevance(value, {}):
            return True
    return False
