"""The engine: a rule table in force inside one `with`, applied by one TorchFunctionMode.

Relevance flows in gradient form: what goes backward is c = R/a, so that relevance at any tensor a is a·c.
A rule is a function `rule(call) -> output`, or NotImplemented where it does not fit. An operation without a
rule keeps its gradient, and the engine records whether that is right (linear) or not (uncovered).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrib.errors import UnsupportedModel
from attrib.rules.autocast import is_lowered, lowered
from attrib.rules.call import Call, carries_inside, carries_relevance, in_transform, is_empty, unasked
from attrib.rules.cuts import Cuts, watch_backward_hooks
from attrib.rules.functions import OUTSIDE, Seen, is_operator
from attrib.rules.ledger import Ledger
from attrib.rules.record import Record
from attrib.rules.table import Rule as Rule
from attrib.rules.table import Rules as Rules
from attrib.rules.vocabulary import IS_LINEAR, KIND, NONLINEAR, OUT_OF_PLACE, name_of, usual
from attrib.rules.weights import OnePass, WeightCache

_DIFFERENTIATING = (torch.autograd.grad, Tensor.backward)
# what a tensor says of itself, which is a third of what modes are asked, and nothing to any rule
_FACTS = frozenset(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim"))


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
        self.ledger = Ledger(inputs[0])
        self.deposits: list[Tensor] = []
        self.record = Record(strict)
        self._cuts = Cuts(self.record)
        self.seen = Seen()
        self.first_done = False
        self._transforms: list[tuple[str, str]] = []  # what ran in one, and in which module
        self._twin = twin
        if rules.conserving:
            watch_backward_hooks(twin, self.record)

    @cached_property
    def _paths(self) -> dict[int, str]:
        # when somebody asks: the walk takes a hundredth of a short text's pass
        return {id(module): path for path, module in self._twin.named_modules()}

    @property
    def path(self) -> str:
        """The module that is running, as in named_modules; "" for the model itself."""
        return self._running() or ""

    def _running(self) -> str | None:
        """`path`; None outside the model. Read from the call stack, so that nobody pays for it who does not ask."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            path = self._paths.get(id(frame.f_locals.get("self")))
            if path is not None:
                return path
            frame = frame.f_back
        return None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FACTS and type(args[0]) in (Tensor, nn.Parameter):
            with unasked():
                return func(*args)
        return self.seen.answering(self._called, func, args, kwargs or {})

    def _called(self, func: Any, args: Any, kwargs: Any) -> Any:
        if in_transform():
            return self._transformed(func, args, kwargs)
        with _kept_in_checkpoint():
            if not self._cuts.concern(func) or not self.rules.conserving:
                return self._met(func, args, kwargs)
            return self._cuts.followed(lambda: self._met(func, args, kwargs), func, args, kwargs, lambda: self.path)

    def _met(self, func: Any, args: Any, kwargs: Any) -> Any:
        func = usual(func)
        kind, aside = KIND.get(func), OUT_OF_PLACE.get(func)
        if is_lowered(kind, args, kwargs):
            return lowered(self, func, args, kwargs)
        if aside is not None and args[0]._is_view() and torch.is_grad_enabled() and carries_relevance(args, kwargs):
            # nobody's gradient passes the view that comes out: a rule or a hook on it would see nothing
            before = args[0].clone()  # which the backward may need after the change
            return args[0].copy_(self._answered(kind, aside, (before, *args[1:]), kwargs))
        if func in _DIFFERENTIATING and self._running() is not None:
            raise UnsupportedModel(
                "the model differentiates inside its own forward, which rules would change with it; "
                "saliency, integrated_gradients, occlusion and others without rules can explain it"
            )
        return self._answered(kind, func, args, kwargs)

    def _transformed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation inside torch.vmap or torch.func, which custom gradients and hooks cannot enter."""
        kind = KIND.get(func)
        expected = self.rules.conserving or kind in NONLINEAR
        if expected and func not in IS_LINEAR and torch.is_grad_enabled() and carries_inside(args, kwargs):
            self._transforms.append((f"{name_of(func)} inside torch.vmap or torch.func", self.path))
        return func(*args, **kwargs)

    def _answered(self, kind: str | None, func: Any, args: Any, kwargs: Any) -> Any:
        if kind is None:
            return self._unruled(func, args, kwargs, "linear" if func in IS_LINEAR else "uncovered")
        if not torch.is_grad_enabled() or not carries_relevance(args, kwargs):
            return func(*args, **kwargs)
        rule = self._rule_for(kind)
        if args and is_empty(args[0]):
            return func(*args, **kwargs)
        output = NotImplemented if rule is None else rule(Call(self, kind, func, tuple(args), kwargs))
        if output is NotImplemented:
            return self._unruled(func, args, kwargs, self._verdict(kind))
        self.record.count("linear" if rule in self.rules.harmless else "ruled", name_of(func))
        return output

    def watch_hidden(self, scores: Tensor) -> None:
        """Count what no rule and no hook could enter: transforms, and what the graph shows besides."""
        for name, path in self._transforms:
            self.record.uncovered(name, path)
        if self.cache.hidden is None:
            self.cache.hidden = self.seen.hidden([scores])
        # gradients do not care about what else takes some; relevance that goes there is lost
        self.record.hidden(name for name in self.cache.hidden if self.rules.conserving or name != OUTSIDE)

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
        return "uncovered" if kind in NONLINEAR else "linear"

    def _expects_a_rule(self, func: Any) -> bool:
        return self.rules.conserving or KIND.get(func) in NONLINEAR or is_operator(func)

    def _unruled(self, func: Any, args: Any, kwargs: Any, verdict: str) -> Any:
        if not torch.is_grad_enabled() or not carries_relevance(args, kwargs):
            return func(*args, **kwargs)
        output = func(*args, **kwargs)
        if not carries_relevance((output,), {}):
            return output
        if verdict == "uncovered" and not self._expects_a_rule(func):
            return output
        if verdict == "linear":
            self.record.count(verdict, name_of(func))
            if args and getattr(args[0], "_attrib_gate", False) and isinstance(output, Tensor):
                output._attrib_gate = True  # type: ignore[attr-defined]  # a gate reshaped is a gate
        else:
            self.record.watch(output, name_of(func), self.path)
        return output


def engine_in_force() -> Engine | None:
    """The innermost engine of this thread, if one is in force."""
    modes = torch.overrides._get_current_function_mode_stack()
    return next((mode for mode in reversed(modes) if isinstance(mode, Engine)), None)


def _kept_in_checkpoint() -> AbstractContextManager[Any]:
    """Inside torch.utils.checkpoint: keep what the backward needs, for a second run would not meet the rules."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if hooks is None or getattr(hooks[0], "__module__", None) != "torch.utils.checkpoint":
        return _AS_IT_IS
    return torch.autograd.graph.saved_tensors_hooks(_itself, _itself)


_AS_IT_IS = nullcontext()


def _itself(tensor: Tensor) -> Tensor:
    return tensor
