"""Findings of several chunks as one, and embeddings' values as one number a token."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from attrib.attribution import Coverage
from attrib.methods.base import Finding
from attrib.targets import BoundTarget


def per_token(finding: Finding) -> Finding:
    """Values of embeddings (batch, tokens, width) as one number a token: their sum, or length if unsigned."""
    if finding.kind != "input":
        return finding
    wide = finding.values.double()
    values = wide.sum(2) if finding.signed else wide.square().sum(2).sqrt()
    return dataclasses.replace(finding, values=values.to(finding.values.dtype), kind="tokens")


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
    full = [table for table in tables if table is not None]
    names = dict.fromkeys(name for table in full for name in table)
    return {name: torch.cat([table[name] for table in full]) for name in names} or None


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


def joined(parts: list[BoundTarget]) -> BoundTarget:
    """The settled target of the whole batch from those of its chunks."""
    if len(parts) == 1 or parts[0].positive is None:
        return parts[0]
    positive = torch.cat([p.positive for p in parts if p.positive is not None])
    negatives = [p.negative for p in parts if p.negative is not None]
    return dataclasses.replace(parts[0], positive=positive, negative=torch.cat(negatives) if negatives else None)
