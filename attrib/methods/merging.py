"""Findings of several chunks, or of several targets, as one."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from attrib.attribution import Coverage
from attrib.methods.base import Finding


def merged(findings: list[Finding]) -> Finding:
    """One finding for the whole batch; notes are kept once, coverage is added up."""
    if len(findings) == 1:
        return findings[0]
    first = findings[0]
    return dataclasses.replace(
        first,
        values=torch.cat([f.values for f in findings]),
        score=torch.cat([f.score for f in findings]),
        delta=None if first.delta is None else torch.cat([f.delta for f in findings if f.delta is not None]),
        ledger=_joined_tables([f.ledger for f in findings]),
        parts=_joined_tables([f.parts for f in findings]),
        coverage=_added([f.coverage for f in findings if f.coverage is not None]),
        notes=tuple(dict.fromkeys(note for f in findings for note in f.notes)),
    )


def _joined_tables(tables: list[dict[str, Tensor] | None]) -> dict[str, Tensor] | None:
    """Every name of any table; where a chunk has no such entry, nothing was booked there."""
    full = [table for table in tables if table is not None]
    known = {name: table[name] for table in full for name in table}
    blank = [torch.zeros_like(next(iter(table.values()))) for table in full]
    parts = {n: [t.get(n, none) for t, none in zip(full, blank, strict=True)] for n in known}
    return {name: torch.cat(tables) for name, tables in parts.items()} or None


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
