"""Findings of several chunks, or of several targets, as one."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from attrib.coverage import Coverage
from attrib.methods.base import Finding


def merged(findings: list[Finding]) -> Finding:
    """One finding for the whole batch; notes are kept once, coverage is added up."""
    if len(findings) == 1:
        return findings[0]
    first, rows = findings[0], [len(f.score) for f in findings]
    return dataclasses.replace(
        first,
        values=torch.cat([f.values for f in findings]),
        score=torch.cat([f.score for f in findings]),
        delta=None if first.delta is None else torch.cat([f.delta for f in findings if f.delta is not None]),
        ledger=_joined_tables([f.ledger for f in findings], rows),
        parts=_joined_tables([f.parts for f in findings], rows),
        coverage=_added([f.coverage for f in findings if f.coverage is not None]),
        notes=tuple(dict.fromkeys(note for f in findings for note in f.notes)),
    )


def _joined_tables(tables: list[dict[str, Tensor] | None], rows: list[int]) -> dict[str, Tensor] | None:
    """Every name of any table; zeros for the rows of a chunk that has no such entry: nothing was booked there."""
    known = {name: entry for table in tables for name, entry in (table or {}).items()}

    def entries(name: str, like: Tensor) -> list[Tensor]:
        nothing = [like.new_zeros(count, *like.shape[1:]) for count in rows]
        return [(table or {}).get(name, none) for table, none in zip(tables, nothing, strict=True)]

    return {name: torch.cat(entries(name, like)) for name, like in known.items()} or None


def _added(coverages: list[Coverage]) -> Coverage | None:
    if not coverages:
        return None
    total = Coverage({}, {}, {})
    for coverage in coverages:
        for part in ("ruled", "linear", "uncovered"):
            counts = getattr(total, part)
            for name, count in getattr(coverage, part).items():
                counts[name] = counts.get(name, 0) + count
    return total
