"""A model's own autograd functions, inside which no mode can see."""

from __future__ import annotations

from torch import Tensor


def autograd_functions(output: Tensor) -> tuple[str, ...]:
    """The names of the custom autograd functions behind `output`, attrib's own left out."""
    nodes, seen, found = [output.grad_fn], set(), set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        function = getattr(type(node), "_forward_cls", None)
        if function is not None and not function.__module__.startswith("attrib."):
            found.add(function.__name__)
        nodes += [behind for behind, _ in node.next_functions]
    return tuple(sorted(found))
