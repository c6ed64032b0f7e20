"""Functions of their own kind on a model's path: custom autograd functions, inside which no mode can see."""

from __future__ import annotations

import torch
from torch import Tensor

# attrib's own, hooks on modules (which hand on what they get), and operators, which a mode sees by themselves
_TRANSPARENT = ("attrib.", "torch.nn.", "torch._library.")


def autograd_functions(output: Tensor) -> tuple[str, ...]:
    """The names of the custom autograd functions behind `output`."""
    nodes, seen, found = [output.grad_fn], set(), set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        function = getattr(type(node), "_forward_cls", None)
        if function is not None and not function.__module__.startswith(_TRANSPARENT):
            found.add(function.__name__)
        nodes += [behind for behind, _ in node.next_functions]
    return tuple(sorted(found))


def is_operator(function: object) -> bool:
    """Whether it is called through torch.ops: a custom operator, or one of torch's own."""
    return isinstance(function, (torch._ops.OpOverload, torch._ops.OpOverloadPacket))
