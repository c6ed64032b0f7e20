"""What an engine met: operations ruled, linear and uncovered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from attrib.errors import UncoveredOperation
from attrib.rules.ruled import on_relevance


class Record:
    """counts: verdict → operation → how often. strict: uncovered operations raise UncoveredOperation instead."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.counts: dict[str, dict[str, int]] = {"ruled": {}, "linear": {}, "uncovered": {}}

    def count(self, verdict: str, name: str) -> None:
        counts = self.counts[verdict]
        counts[name] = counts.get(name, 0) + 1

    def uncovered(self, name: str, path: str) -> None:
        """Relevance passed an operation that nothing covers."""
        if self.strict:
            raise _uncovered(name, path)
        self.count("uncovered", f"{name} in {path or 'the model'}")

    def hidden(self, names: Iterable[str]) -> None:
        """What no mode can see into."""
        for name in names:
            if self.strict:
                raise _uncovered(name, "")
            self.count("uncovered", name)

    def watch(self, output: Any, name: str, path: str) -> None:
        """Report the operation once relevance really comes back through it: a detached norm's square is harmless."""
        seen: list[bool] = []

        def met(c: Tensor) -> None:
            if not seen:
                seen.append(True)
                self.uncovered(name, path)

        for part in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(part, Tensor) and part.requires_grad:
                on_relevance(part, met)


def _uncovered(name: str, path: str) -> UncoveredOperation:
    where = f"module {path!r}" if path else "the model's own forward"
    return UncoveredOperation(
        f"no rule covers {name!r} in {where}; use strict=False to take its plain gradient and see it in "
        f"result.coverage, or a rule table that has it: rules | Rules({{kind: rule}})"
    )
