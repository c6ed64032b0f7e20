"""From the last block's output to the explained number: final norm and head, for the positions and tokens it reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attrib.binding import BoundTarget
from attrib.failures import is_out_of_memory
from attrib.patching.blocks import block_paths, returned
from attrib.patching.calls import Call
from attrib.patching.structure import Structure
from attrib.rules.shadow import shadow
from attrib.sites import first_tensor

# torch's words for tensors that do not go together: mostly its error is of no type of its own
_SIZES = re.compile(r"\b(sizes?|shapes?|dimensions?|bounds|range|elements|length)\b", re.IGNORECASE)
_FULL_HEAD_AT_ONCE = 64  # rows whose logits of all tokens are kept at the same time


class Tail:
    """The explained number of hidden states behind the last block.

    A twin of its own runs with its blocks left out: what surrounds them (final norm, pooling, head, soft-caps) is the
    model's. Where the target reads one or two logits, the head computes these alone.

    forward: what the model's wrapper returns for (twin, word embeddings (rows, tokens, width)).
    x: word embeddings of the prompts that `calls` and `target` are of.
    """

    def __init__(
        self,
        module: nn.Module,
        structure: Structure,
        calls: tuple[Call, ...],
        forward: Callable[[nn.Module, Tensor], Any],
        x: Tensor,
        target: BoundTarget,
    ) -> None:
        self._twin, self._forward, self._x, self._target = shadow(module), forward, x, target
        self._last = calls[-1]
        self._hidden: Tensor | None = None
        for path, call in zip(block_paths(structure), calls, strict=True):
            _replace_forward(self._twin.get_submodule(path), self._skip(call))
        self._at_once = _FULL_HEAD_AT_ONCE
        if target.kind in ("logit", "difference") and target.positive is not None:
            self._narrow(self._twin.get_submodule(structure.head))
        if not self._takes_rows(calls[-1].made[:1]):
            self._at_once = 1

    def _narrow(self, head: nn.Module) -> None:
        """Let the head compute the tokens that the target reads alone, where the metric is the same then."""
        if type(head) is not nn.Linear:
            return
        made, of = self._last.made[:1], torch.zeros(1, dtype=torch.long, device=self._x.device)
        expected, whole = self._scores(made, of), (self._target, self._at_once, dict(head._parameters))
        _cut(head, self._target)
        self._target, self._at_once = _renumbered(self._target), 1 << 20
        try:
            found = self._scores(made, of)
        except (RuntimeError, IndexError) as error:
            if not _is_about_sizes(error):
                raise
            found = torch.full_like(expected, torch.nan)  # a bias of all tokens stands behind the head, say
        if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
            self._target, self._at_once, parameters = whole
            head._parameters.update(parameters)

    def scores(self, hidden: Tensor, of: Tensor) -> Tensor:
        """(rows,) from (rows, tokens, width). of: (rows,) which prompt each is of."""
        pieces = zip(hidden.split(self._at_once), of.split(self._at_once), strict=True)
        return torch.cat([self._scores(rows, own) for rows, own in pieces])

    def _takes_rows(self, hidden: Tensor) -> bool:
        """Whether two different rows get together what they get apart: some classifiers read the first row only."""
        rows = (hidden, hidden.flip(-1))
        of = torch.zeros(2, dtype=torch.long, device=hidden.device)
        together, apart = self._scores(torch.cat(rows), of), torch.cat([self._scores(row, of[:1]) for row in rows])
        return together.shape == apart.shape and bool(
            (together - apart).abs().max() <= 0.1 * (apart[0] - apart[1]).abs()
        )

    def _scores(self, hidden: Tensor, of: Tensor) -> Tensor:
        self._hidden = hidden
        # what the blocks are given is of no account, but it has to fit what stands in front of them
        outputs = self._forward(self._twin, self._x[:1, -hidden.shape[1] :].expand(len(hidden), -1, -1))
        return self._target.scores(outputs, None if self._target.function else of)

    def _skip(self, call: Call) -> Callable[..., Any]:
        def skip(*args: Any, **kwargs: Any) -> Any:
            given = first_tensor((*args, *kwargs.values()))
            return returned(call, given if call is not self._last or self._hidden is None else self._hidden)  # type: ignore[arg-type]

        return skip


def _replace_forward(module: nn.Module, forward: Callable[..., Any]) -> None:
    module.__dict__["forward"] = forward


def _is_about_sizes(error: Exception) -> bool:
    """Whether tensors did not fit together; not: memory that ran out, or another failure of the model's code."""
    return isinstance(error, IndexError) or (not is_out_of_memory(error) and bool(_SIZES.search(str(error))))


def _cut(head: nn.Linear, target: BoundTarget) -> None:
    """Leave the head of a twin only the tokens that the target reads."""
    assert target.positive is not None, "`_narrow` has looked"
    read = [target.positive] if target.negative is None else [target.positive, target.negative]
    tokens = torch.cat(read).to(head.weight.device)
    for name, parameter in head._parameters.items():
        if parameter is not None:
            head._parameters[name] = parameter[tokens]  # type: ignore[assignment]


def _renumbered(target: BoundTarget) -> BoundTarget:
    """The same target for logits that are its own tokens' alone."""
    assert target.positive is not None, "`_narrow` has looked"
    first = torch.arange(len(target.positive))
    negative = None if target.negative is None else first + len(first)
    return replace(target, positive=first, negative=negative, labels=None)
