"""What a run with rules came across."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Coverage:
    """Every operation that relevance passed: how often, and whether a rule covered it.

    Keys are operation names; `uncovered` keys are "operation in module.path".
    """

    ruled: dict[str, int] = field(default_factory=dict)
    linear: dict[str, int] = field(default_factory=dict)
    uncovered: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = f"{sum(self.ruled.values())} ruled, {sum(self.linear.values())} linear"
        return counts + (f", uncovered: {', '.join(self.uncovered)}" if self.uncovered else ", nothing uncovered")
