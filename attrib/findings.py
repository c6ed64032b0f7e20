"""Targets of several chunks as one, and embeddings' values as one number a token."""

from __future__ import annotations

import dataclasses

import torch

from attrib.binding import BoundTarget
from attrib.methods.base import Finding
from attrib.rules.precision import wide


def per_token(finding: Finding) -> Finding:
    """Values of embeddings (batch, tokens, width) as one number a token: their sum, or length if unsigned."""
    if finding.kind != "input":
        return finding
    values = wide(finding.values)
    values = values.sum(2) if finding.signed else values.square().sum(2).sqrt()
    return dataclasses.replace(finding, values=values.to(finding.values.dtype), kind="tokens")


def joined(parts: list[BoundTarget]) -> BoundTarget:
    """The settled target of the whole batch from those of its chunks."""
    if len(parts) == 1 or parts[0].positive is None:
        return parts[0]
    positive = torch.cat([p.positive for p in parts if p.positive is not None])
    negatives = [p.negative for p in parts if p.negative is not None]
    negative = torch.cat(negatives) if negatives else None
    places = None if parts[0].places is None else tuple(place for p in parts for place in p.places or ())
    return dataclasses.replace(parts[0], positive=positive, negative=negative, places=places)
