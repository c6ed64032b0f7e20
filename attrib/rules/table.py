"""The rule table: which rule answers which operation, where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attrib.rules.call import Call

Rule = Callable[["Call"], Any]


@dataclass(frozen=True)
class Rules:
    """A table from operation kind to rule. `a | b`: b overrides a; `.inside(pattern, rules)` scopes by module.

    The kind "first" is the first linear layer that relevance can reach the input through.
    conserving: the table claims to account for all relevance, so every operation must be ruled or linear;
        otherwise only activations are expected to have a rule.
    """

    table: Mapping[str, Rule] = field(default_factory=dict)
    scoped: tuple[tuple[str, Mapping[str, Rule]], ...] = ()
    conserving: bool = False
    harmless: frozenset[Rule] = frozenset()  # rules that are the ordinary gradient, counted as linear

    def __post_init__(self) -> None:
        scoped = tuple((pattern, MappingProxyType(dict(table))) for pattern, table in self.scoped)
        object.__setattr__(self, "table", MappingProxyType(dict(self.table)))
        object.__setattr__(self, "scoped", scoped)

    def __hash__(self) -> int:  # of what mappingproxies hold, which have none
        scoped = tuple((pattern, frozenset(table.items())) for pattern, table in self.scoped)
        return hash((frozenset(self.table.items()), scoped, self.conserving, self.harmless))

    def __reduce__(self) -> Any:  # nor can they be pickled or copied
        scoped = tuple((pattern, dict(table)) for pattern, table in self.scoped)
        return Rules, (dict(self.table), scoped, self.conserving, self.harmless)

    def __or__(self, other: Rules) -> Rules:
        return Rules(
            {**self.table, **other.table},
            self.scoped + other.scoped,
            self.conserving or other.conserving,
            self.harmless | other.harmless,
        )

    def inside(self, pattern: str, rules: Rules | Mapping[str, Rule]) -> Rules:
        """The same table, with `rules` overriding it in modules whose path matches the glob `pattern`."""
        table = rules.table if isinstance(rules, Rules) else rules
        return replace(self, scoped=(*self.scoped, (pattern, table)))

    def find(self, kind: str, path: str) -> Rule | None:
        """The rule for `kind` in module `path`; the last matching scope wins."""
        for pattern, table in reversed(self.scoped):
            if kind in table and fnmatchcase(path, pattern):
                return table[kind]
        return self.table.get(kind)
