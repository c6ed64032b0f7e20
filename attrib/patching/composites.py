"""Queries, keys and values that each come from a stream of their own, put together for one run of attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.patching.access import writing
from attrib.patching.places import Place
from attrib.patching.sites import PatchSite

_ROWS_AT_ONCE = 2**12  # token positions that go through projections together


def composites(
    twin: nn.Module, block: Callable[[Tensor], Any], sites: Sequence[PatchSite], streams: Tensor
) -> dict[Place, Tensor]:
    """Projection → (circuits, tokens, columns), each site's columns made from the stream that it reads.

    block: runs a block of the twin on hidden states (rows, tokens, width). streams: (circuits, sites, tokens, width).
    """
    at_once = max(1, _ROWS_AT_ONCE // (streams.shape[1] * streams.shape[2]))
    parts = [_composites(twin, block, sites, rows) for rows in streams.split(at_once)]
    return {place: torch.cat([part[place] for part in parts]) for place in parts[0]}


def _composites(
    twin: nn.Module, block: Callable[[Tensor], Any], sites: Sequence[PatchSite], streams: Tensor
) -> dict[Place, Tensor]:
    circuits, rows, tokens, _ = streams.shape
    places = list(dict.fromkeys(site.place for site in sites))
    found = {}
    for place, tensor in _projected(twin, block, places, streams.flatten(0, 1)).items():
        apart = tensor.reshape(circuits, rows, tokens, -1)
        own = apart[:, 0].clone()
        for row, site in enumerate(sites):
            if site.place == place:
                own[..., site.part] = apart[:, row, :, site.part]
        found[place] = own
    return found


def _projected(
    twin: nn.Module, block: Callable[[Tensor], Any], places: Sequence[Place], hidden: Tensor
) -> Mapping[Place, Tensor]:
    """What the projections make of hidden states (rows, tokens, width); the block is left behind the last one."""
    found: dict[Place, Tensor] = {}

    def note(place: Place, tensor: Tensor) -> Tensor:
        found[place] = tensor
        if len(found) == len(places):
            raise _Projected
        return tensor

    with writing(twin, {place: (lambda tensor, place=place: note(place, tensor)) for place in places}):  # type: ignore[misc]
        try:
            block(hidden)
        except _Projected:
            return found
    raise UnsupportedModel(f"a block of {type(twin).__name__} ran without its projections")


class _Projected(Exception):
    """All projections are known, which is all that was asked."""
