"""Operations on a model's path that no mode meets: found in the graph that they leave behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# attrib's own, hooks on modules (which hand on what they get), and operators, which a mode sees by themselves
_TRANSPARENT = ("attrib.", "torch.nn.", "torch._library.")
_MOVING = re.compile(
    r"(Alias|AsStrided|Clone|Expand|Permute|Reshape\w*|Select|Slice|Squeeze|T|Transpose|Unbind|Unsqueeze|\w*View)\d*"
)
OUTSIDE = "a weight outside of the model's modules"
_newest: Callable[[], int] = torch._C._autograd._get_sequence_nr


class Seen:
    """The nodes of the graph that came into being while calls were answered, by their number in this thread."""

    def __init__(self) -> None:
        self._during: list[range] = []

    def answering(self, answer: Callable[..., Any], *args: Any) -> Any:
        """`answer(*args)`, whose nodes count as seen."""
        first = _newest()
        try:
            return answer(*args)
        finally:
            self._during.append(range(first, _newest()))

    def hidden(self, outputs: Sequence[Tensor]) -> tuple[str, ...]:
        """What lies behind `outputs` and was not met: the model's own autograd functions, what scripted functions and
        extensions compute, and weights that no module of the model holds, which take relevance as if they were inputs.
        """
        seen: set[int] = set().union(*self._during)
        return tuple(sorted({name for node in _behind(outputs) if (name := _hidden_in(node, seen))}))


def _hidden_in(node: Any, seen: set[int]) -> str | None:
    function = getattr(type(node), "_forward_cls", None)
    if function is not None:
        transparent = function.__module__.startswith(_TRANSPARENT)
        return None if transparent else f"{function.__name__} (a custom autograd function)"
    if hasattr(node, "variable"):
        return OUTSIDE if isinstance(node.variable, nn.Parameter) else None
    name = str(node.name()).rsplit(":", 1)[-1].split("Backward")[0]
    if node._sequence_nr() in seen or _MOVING.fullmatch(name):
        return None
    return f"a function by torch.jit.script or of an extension ({name})"


def _behind(outputs: Sequence[Tensor]) -> Iterator[Any]:
    nodes: list[Any] = [output.grad_fn for output in outputs]
    met = set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in met:
            met.add(node)
            yield node
            nodes += [behind for behind, _ in node.next_functions]


def is_operator(function: object) -> bool:
    """Whether it is called through torch.ops: a custom operator, or one of torch's own."""
    return isinstance(function, (torch._ops.OpOverload, torch._ops.OpOverloadPacket))
