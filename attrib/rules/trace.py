"""The baseline's run, kept for DeepLIFT: what went into every operation whose multiplier needs both runs.

The baseline runs first, without a graph, and leaves a trace; the input's run then meets the same operations in the
same order. An operation that a rule opens into others leaves a trace of its own inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrib.errors import UnsupportedModel
from attrib.rules.affine import Affine
from attrib.rules.autocast import is_lowered, lowered
from attrib.rules.call import Call, each_tensor
from attrib.rules.choices import Choices, same
from attrib.rules.engine import Engine
from attrib.rules.table import Rule
from attrib.rules.vocabulary import KIND, name_of, usual
from attrib.rules.weights import WeightCache


class OtherPath(UnsupportedModel):
    """The model takes another path on the baseline than on the input."""


class _Departed(Exception):
    """`OtherPath` inside the model: of a TypeError, operators would say that they do not support the operands."""


def _parted(path: str) -> _Departed:
    where = f" in its module {path!r}" if path else ""
    return _Departed(
        f"the model takes another path on the baseline than on the input{where}, so DeepLIFT "
        "cannot pair their activations; choose a baseline nearer to the input, or integrated_gradients"
    )


@contextmanager
def departures() -> Iterator[None]:
    """Around a run of the model: OtherPath where it departs from the baseline's."""
    try:
        yield
    except _Departed as departed:
        raise OtherPath(str(departed)) from departed


@dataclass
class Entry:
    """One operation on the baseline: its tensors (None where they do not depend on the input), and those inside it."""

    operands: tuple[Tensor | None, ...]
    inside: list[Entry] = field(default_factory=list)


class BaselineRecorder(TorchFunctionMode):
    """Keeps a copy of what goes into every operation of `kinds`; runs `opening` rules, which open one into others.

    with_graph: follow what depends on the input by autograd's graph, in its memory; else by a mark on the tensors,
    which operations that no mode sees lose (Tensor.as_subclass).
    """

    def __init__(
        self, cache: WeightCache, kinds: frozenset[str], opening: Mapping[str, Rule], with_graph: bool = False
    ) -> None:
        super().__init__()
        self._with_graph = with_graph
        self.cache, self._kinds, self._opening = cache, kinds, opening
        self.entries: list[Entry] = []
        self.chosen: list[list[Tensor]] = []
        self._stack = [self.entries]
        self._choices = Choices(self.carries)

    def run(self, compute: Callable[[Tensor], Any], baseline: Tensor) -> Any:
        """`compute(baseline)`, recorded."""
        with torch.enable_grad():  # so that a model's own no_grad shows; without a graph nothing requires any
            start = baseline.detach().requires_grad_(self._with_graph).clone()
            start._attrib_depends = True  # type: ignore[attr-defined]
            with self:
                return compute(start)

    def carries(self, value: Any) -> bool:
        """Whether a tensor depends on the input in a way that gradients follow."""
        if self._with_graph:
            return isinstance(value, Tensor) and value.requires_grad
        return isinstance(value, Tensor) and getattr(value, "_attrib_depends", False)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, func = kwargs or {}, usual(func)
        kind = KIND.get(func)
        depends = torch.is_grad_enabled() and any(map(self.carries, tensors_in((args, kwargs))))
        if kind in self._kinds:
            self._stack[-1].append(Entry(tuple(self._copied(v) for v in tensors_in((args, kwargs)))))
        output = self._computed(kind, func, tuple(args), kwargs, depends)
        if depends and func is not Tensor.detach:
            for part in tensors_in(output):
                part._attrib_depends = part.is_floating_point() or part.is_complex()  # type: ignore[attr-defined]
        chosen = self._choices.met(func, args, kwargs, output)
        if chosen:
            self.chosen.append([choice.clone() for choice in chosen])
        return output

    def _computed(self, kind: str | None, func: Any, args: Any, kwargs: Any, depends: bool) -> Any:
        if is_lowered(kind, args, kwargs):
            return lowered(self, func, args, kwargs)
        call = Call(cast(Engine, self), kind or "", func, args, kwargs)
        if kind == "conv":
            # as the input's pass computes it, so that both lie in memory alike
            layer = Affine.of(call, self.cache)
            if layer is not None and not call.x.requires_grad:  # its products write where autograd cannot follow
                return layer.plain(call.x)
        opening = self._opening.get(kind or "") if depends else None
        output = NotImplemented if opening is None else opening(call)
        return func(*args, **kwargs) if output is NotImplemented else output

    def under(self, compute: Callable[[], Any]) -> Any:
        """`compute()`, recorded inside the newest entry."""
        self._stack.append(self._stack[-1][-1].inside)
        try:
            with self:
                return compute()
        finally:
            self._stack.pop()

    def _copied(self, value: Tensor) -> Tensor | None:
        return value.detach().clone() if self.carries(value) else None


class RescaleEngine(Engine):
    """An engine that hands each operation of `kinds` its entry in the baseline's trace."""

    def __init__(self, baseline: BaselineRecorder, kinds: frozenset[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kinds, self._stack = kinds, [iter(baseline.entries)]
        self._chosen, self._choices = iter(baseline.chosen), Choices(self.carries)
        self.entry: Entry | None = None

    def carries(self, value: Any) -> bool:
        """Whether a tensor carries relevance."""
        return isinstance(value, Tensor) and value.requires_grad

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if KIND.get(usual(func)) in self._kinds:
            self.entry = next(self._stack[-1], None)
        output = super().__torch_function__(func, types, args, kwargs)
        chosen = self._choices.met(func, args, kwargs or {}, output)
        if chosen:
            self._compare(chosen, func, args[0] if output is None else output)
        return output

    def _compare(self, chosen: list[Tensor], func: Any, output: Any) -> None:
        """Report an operation whose choice on the baseline was another."""
        before = next(self._chosen, [])
        if same(chosen, before):
            return
        if [len(b) for b in before if b.dim()] != [len(c) for c in chosen if c.dim()]:
            raise _parted(self.path)
        self.record.watch(output, name_of(func), self.path)

    def under(self, compute: Callable[[], Any]) -> Any:
        with self._inside([] if self.entry is None else self.entry.inside):
            return super().under(compute)

    @contextmanager
    def _inside(self, entries: list[Entry]) -> Iterator[None]:
        self._stack.append(iter(entries))
        try:
            yield
        finally:
            self._stack.pop()


def recorded(call: Call, operand: int = 0) -> Tensor:
    """The call's `operand`-th tensor as it was on the baseline; (1 or batch, …) like the call's own."""
    entry = call.engine.entry if isinstance(call.engine, RescaleEngine) else None
    given = tensors_in((call.args, call.kwargs))[operand]
    value = None if entry is None or operand >= len(entry.operands) else entry.operands[operand]
    if value is None or value.shape[1:] != given.shape[1:] or value.shape[:1] not in ((1,), given.shape[:1]):
        raise _parted(call.engine.path)
    return value


def carries(call: Call, value: Any) -> bool:
    """Whether `value` depends on the input, on the baseline's run as on the input's."""
    answer: bool = cast(Any, call.engine).carries(value)
    return answer


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors among nested arguments, in order."""
    return list(each_tensor(values))
