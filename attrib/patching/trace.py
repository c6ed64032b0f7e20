"""One forward of a twin as a graph of tensors: what was added to what, and which modules made and read it."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrib.patching.inside import likeness
from attrib.patching.nodes import Node, Visit, Weights
from attrib.patching.operations import Heads, Kind, changes_in_place, factor_of, heads_of, is_alias, kind_of
from attrib.rules.vocabulary import KIND


class Trace(TorchFunctionMode):
    """In force (with `watch`), it records. Leaf modules are single operations; tensors are kept while this lives."""

    def __init__(self, twin: nn.Module) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.tensors: list[Tensor] = []
        self.visits: list[Visit] = []  # in the order of their returns
        self.changed: set[int] = set()  # nodes whose tensor was changed in place later on
        self.heads: dict[int, Heads] = {}  # attention nodes
        self.output: Any = None  # of the forward
        self._twin = twin
        self._paths: dict[int, str] = {}
        for path, module in twin.named_modules():
            self._paths.setdefault(id(module), path)
        self._weights = Weights(twin)
        self._known: dict[int, int] = {}
        self._inside: list[tuple[str, bool, tuple[int, ...], int]] = []
        # of the operations in the own code of the modules that run
        self._counts: list[Counter[tuple[str, int, int]]] = []
        self._entries: Counter[str] = Counter()
        self._clock = 0

    def run(self, x: Tensor, forward: Any) -> Trace:
        """Record `forward(twin, x)`; x: (1, tokens, width)."""
        self.node_of(x)
        with ExitStack() as stack:
            for module in self._twin.modules():
                stack.callback(module.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(self._leave, with_kwargs=True).remove)
            stack.enter_context(self)
            self.output = forward(self._twin, x)
        return self

    @property
    def tokens(self) -> int:
        """How many it was given."""
        return self.tensors[0].shape[1]

    def swapped(self, node: int) -> tuple[int, int] | None:
        """What has to be exchanged in a tensor that keeps (batch, width, tokens)."""
        shape = self.tensors[node].shape
        return (1, 2) if len(shape) == 3 and shape[1] != self.tokens == shape[2] else None

    def rows(self, node: int) -> Tensor:
        """The tensor with its width behind."""
        return self.like(node, self.tensors[node])

    def like(self, node: int, tensor: Tensor) -> Tensor:
        """Another tensor, of the node's shape, with its width behind: all that comes after the tokens."""
        swapped = self.swapped(node)
        tensor = tensor if swapped is None else tensor.transpose(*swapped)
        return tensor.flatten(2) if self.has_parts(node) else tensor

    def has_parts(self, node: int) -> bool:
        """Whether what it has for each token has several dimensions: heads, or streams."""
        shape = self.tensors[node].shape
        return len(shape) > 3 and set(shape[:2]) == {1, self.tokens}

    def upright(self, node: int) -> int:
        """The same numbers where a module put them out before they were only transposed."""
        while self.nodes[node].kind == "alias" and self.swapped(node) is not None:
            node = self.nodes[node].inputs[0]
        return node

    def node_of(self, tensor: Tensor) -> int:
        """The tensor's node; a tensor that nothing recorded has made is a source."""
        known = self._known.get(id(tensor))
        return self._add(tensor, Node("source", (), "")) if known is None else known

    def weight_of(self, node: int) -> str | None:
        """The path of the parameter or buffer that every row of the tensor is; None where it is none."""
        return self._weights.path_of(self.tensors[node])

    def visits_of(self, path: str) -> list[Visit]:
        return [visit for visit in self.visits if visit.path == path]

    def call_of(self, visit: Visit) -> int | None:
        """Which of its module's calls this is; None where there is no other."""
        calls = self.visits_of(visit.path)
        return calls.index(visit) if len(calls) > 1 else None

    def turn_of(self, node: int) -> int | None:
        """In which call of its module an operation made it; None where there is no other."""
        made = self.nodes[node]
        return made.turn if self._entries[made.path] > 1 else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.requires_grad_:  # asked for by the model's own code: made from no prompt for that
            return args[0]
        if self._inside and self._inside[-1][1]:
            return func(*args, **kwargs)
        given = _tensors((args, kwargs))
        inputs = tuple(self.node_of(tensor) for tensor in given)
        output = func(*args, **kwargs)
        like = self._counted(func, output)
        made = _tensors(output)
        in_place = any(tensor is one for tensor in made for one in given) and changes_in_place(func)
        if in_place:
            self.changed.update(inputs[:1])
        for tensor in made:
            if id(tensor) not in self._known or in_place:
                self._note(func, tensor, like, args, given, inputs)
            base = tensor._base
            if in_place and base is not None and id(base) in self._known and base.numel() != tensor.numel():
                self._add(base, Node("other", (self._known[id(base)], self._known[id(tensor)]), ""))  # written in part
        return output

    def _note(
        self,
        func: Any,
        tensor: Tensor,
        like: tuple[str, int, int] | None,
        args: Any,
        given: list[Tensor],
        inputs: tuple[int, ...],
    ) -> None:
        path = self._inside[-1][0] if self._inside else ""
        kind: Kind = "other"
        factor = by = None
        operation = KIND.get(func)
        if is_alias(func, tensor, given):
            kind, inputs = "alias", inputs[:1]
        elif operation == "sum_of_two":
            kind = "sum"
        elif operation in ("product", "quotient"):
            carrying = [i for i in inputs if self.tensors[i].requires_grad]
            if len(carrying) == 1:
                others = [i for i in inputs if i not in carrying]
                by = others[0] if operation == "product" and len(others) == 1 else None
                kind, inputs, factor = "scaled", tuple(carrying), factor_of(operation, args)
            elif operation == "product":
                kind = "gated"
        node = self._add(tensor, Node(kind, inputs, path, factor, by))
        heads = heads_of(operation, tensor, given, self.tokens)
        if heads is not None:
            self.nodes[node] = Node("attention", inputs, path)
            self.heads[node] = heads if operation != "attention" else replace(heads, weights=(*inputs[:2], *inputs[3:]))
        if like is not None and not changes_in_place(func):
            number, turn = self._counts[-1][like] - 1, self._entries[path] - 1
            self.nodes[node] = replace(self.nodes[node], operation=(*like, number), turn=turn)

    def _counted(self, func: Any, output: Any) -> tuple[str, int, int] | None:
        """What the operation makes, if it is met in a module's own code; its width is 0 where that is tokens."""
        if not self._counts or not isinstance(output, Tensor):
            return None
        name, dimensions, width = likeness(func, output)
        like = (name, dimensions, 0 if width == self.tokens else width)
        self._counts[-1][like] += 1
        return like

    def _made(self, leaf: nn.Module, tensor: Tensor, inputs: tuple[int, ...], path: str) -> None:
        kind = kind_of(leaf, self.tensors[inputs[0]] if inputs else None, tensor)
        heads = heads_of("softmax", tensor, [], self.tokens) if isinstance(leaf, nn.Softmax) else None
        node = self._add(tensor, Node(kind if heads is None else "attention", inputs, path))
        if heads is not None:
            self.heads[node] = heads

    def _adds(self, node: int, inputs: tuple[int, ...]) -> bool:
        """Whether the tensor is one of these, or a sum of them, each multiplied with constants or added to some."""
        if node in inputs:
            return True
        made = self.nodes[node]
        carrying = [i for i in made.inputs if self.tensors[i].requires_grad]
        sums = made.kind in ("alias", "scaled", "sum") and len(carrying) > 0
        return sums and all(self._adds(i, inputs) for i in carrying)

    def _add(self, tensor: Tensor, node: Node) -> int:
        self.nodes.append(node)
        self.tensors.append(tensor)
        self._known[id(tensor)] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        with torch._C.DisableTorchFunction():
            self._entered(module, args, kwargs)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        with torch._C.DisableTorchFunction():
            self._left(module, output)

    def _entered(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        inputs = tuple(self.node_of(tensor) for tensor in _tensors((args, kwargs)))
        # a leaf that joins tensors without weights of its own (attention as a module) or by vectors is seen from inside
        matrices = any(p is not None and p.dim() > 1 for p in module._parameters.values())
        alone = len(inputs) == 1 or (not inputs and bool(module._parameters))
        atomic = next(module.children(), None) is None and (alone or matrices)
        path = self._paths[id(module)]
        self._inside.append((path, atomic, inputs, self._clock))
        self._counts.append(Counter())
        self._entries[path] += 1
        self._clock += 1

    def _left(self, module: nn.Module, output: Any) -> None:
        path, atomic, inputs, began = self._inside.pop()
        self._counts.pop()
        self._clock += 1
        made = _tensors(output)
        if not made:
            return
        first = next((tensor for tensor in made if tensor.is_floating_point()), made[0])
        opened = not atomic and bool(module._parameters) and next(module.children(), None) is None
        if (atomic and id(first) not in self._known) or (opened and not self._adds(self.node_of(first), inputs)):
            self._made(module, first, inputs, path)  # whole, unless it only adds up what it was given
        self.visits.append(Visit(path, inputs, self.node_of(first), (began, self._clock)))


def _tensors(value: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in _tensors(part)]
    return []
