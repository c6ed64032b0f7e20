"""Where a model cuts relevance off: detached tensors, no_grad, numbers read off an activation, hooks that change it.

What is computed from such values is marked (`marks`), and where it joins relevance again, the cut is reported as
uncovered. A mask or a branch that depends on values cuts nothing: its slope is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attrib.rules.call import each_tensor
from attrib.rules.marks import Marks, written
from attrib.rules.record import Record
from attrib.rules.vocabulary import name_of

_CUTTING = {Tensor.detach: "detach", Tensor.detach_: "detach", Tensor.data.__get__: "data"}  # type: ignore[attr-defined]
# numbers that nobody can follow, and a gradient that the model changes itself
_READING = frozenset(
    {Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__float__, Tensor.register_hook}
)
# values of their own, in the shape of what they are given
_SHAPED = frozenset(
    {torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like, torch.rand_like, torch.randn_like}
    | {Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty, Tensor.new_full, Tensor.new_tensor}
)
Cut = tuple[str, str]  # the operation, and the module's path


class Cuts:
    """The cuts of one forward; record: where they are reported."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._marks = Marks[Cut]("cut", _carries)

    def concern(self, func: Any) -> bool:
        """Whether a call may cut, or meet what was cut."""
        return self._marks.any or func in _CUTTING or func in _READING or not torch.is_grad_enabled()

    def followed(self, answer: Callable[[], Any], func: Any, args: Any, kwargs: Any, path: Callable[[], str]) -> Any:
        """`answer()` of a call, whose results carry the cut on where they depend on one."""
        given = list(each_tensor((args, kwargs)))
        carrying = any(map(_carries, given))
        cuts = self._marks.of(given)
        if func in _READING and (carrying or cuts):
            self._record.uncovered(name_of(func), path())
        if carrying and not torch.is_grad_enabled():
            cuts.append(("no_grad", path()))
        elif carrying and func in _CUTTING:
            cuts.append((_CUTTING[func], path()))
        output = answer()
        if cuts and func not in _SHAPED:
            self._marks.spread(cuts[0], output, args, only=_measures)
            for joined in filter(_carries, written(output, args)):
                self._record.watch(joined, *cuts[0])
        return output


def watch_backward_hooks(twin: nn.Module, record: Record) -> None:
    """Report the hooks of the model's own that put another gradient in the place of one; others may look at it."""
    hooked = [module for module in twin.modules() if module._backward_hooks or module._backward_pre_hooks]
    paths = {id(module): path for path, module in twin.named_modules()} if hooked else {}
    for module in hooked:
        for hooks in (module._backward_hooks, module._backward_pre_hooks):
            for key, hook in hooks.items():
                hooks[key] = _Telling(getattr(hook, "hook", hook), record, paths[id(module)])


class _Telling:
    """A backward hook; hook: the model's own, which an engine before this one may have found telling already."""

    def __init__(self, hook: Callable[..., Any], record: Record, path: str) -> None:
        self.hook, self._record, self._path = hook, record, path

    def __call__(self, *given: Any) -> Any:
        changed = self.hook(*given)
        if changed is not None:
            self._record.uncovered("a backward hook", self._path)
        return changed


def _carries(tensor: Tensor) -> bool:
    return tensor.requires_grad


def _measures(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
