"""Which columns of which projection are the queries, keys and values of each head.

Fused, separate, interleaved and grouped projections need no case of their own. Where a norm goes over all heads of a
projection at once, its columns act on every head; behind that norm they are each head's own. What all heads share
beside their own (the rotary part of DeepSeek's keys) is of none. What is of two kinds (one projection for keys and
values) is of either only where nothing else is of that kind alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from attrib.patching.acting import KINDS, Acting
from attrib.patching.places import Columns, width_of

# "queries" … → which projection, and the columns of each head; without the kinds that were not found
Found = dict[str, tuple[int, tuple[Columns, ...]]]


def columns_of(
    heads: Sequence[Acting], owners: Sequence[int], width: int, ways: tuple[bool, ...] = (True, False)
) -> Found:
    """For each kind that has columns of its own: which projection, and the columns of each (key-value) head. width: of
    what each head puts out. ways: whether only those that are of no other kind, in turn."""
    found: Found = {}
    for kind in KINDS:
        for alone in ways:
            masks = [each.of_kind(kind, alone) for each in heads]
            _find(found, kind, masks, owners)
            # another matrix may weigh positions (Doge), or make what values are convolved with (Inkling 2)
            for owner in set(owners) if kind != "queries" else ():
                own = [[m & (of == owner) for m, of in zip(e, owners, strict=True)] for e in masks]
                _find(found, kind, own, owners, *([width] if kind == "values" else []))
    return found


def _find(found: Found, kind: str, masks: list[list[Tensor]], owners: Sequence[int], *wide: int) -> None:
    """wide: how wide columns have to be."""
    if kind in found:
        return
    heads = len(masks)
    own, shared = _own(masks, owners)
    runs = [_runs(each, owners) for each in own]
    for place in range(len(owners)):
        each = [columns[place] for columns in runs if place in columns]
        ordered = tuple(dict.fromkeys(each))  # heads of one group share their keys and values
        widths = {width_of(columns) for columns in ordered} | set(wide)
        if kind == "keys" and "queries" in found and not shared:  # they meet in a product
            widths.add(width_of(found["queries"][1][0]))
        expected = len(ordered) == heads if kind == "queries" else heads % max(1, len(ordered)) == 0
        if len(each) == heads and len(widths) == 1 and expected:
            found.setdefault(kind, (place, ordered))


def _own(masks: list[list[Tensor]], owners: Sequence[int]) -> tuple[list[list[Tensor]], bool]:
    """(columns of each head in each projection, less matrices all of whose columns act on every head; whether there
    were such). All are kept where a head would have none left."""
    shared = [torch.stack(each).all(0) for each in zip(*masks, strict=True)]
    private = {
        of for each in masks for mask, other, of in zip(each, shared, owners, strict=True) if (mask & ~other).any()
    }
    own = [[mask & (of in private) for mask, of in zip(each, owners, strict=True)] for each in masks]
    if any(not any(bool(mask.any()) for mask in each) for each in own):
        return masks, False
    return own, any(bool(mask.any()) for mask, of in zip(shared, owners, strict=True) if of not in private)


def _runs(masks: list[Tensor], owners: Sequence[int]) -> dict[int, Columns]:
    """Which columns are set; nothing where they are of more than one matrix."""
    used = [i for i, mask in enumerate(masks) if bool(mask.any())]
    return {i: _stretches(masks[i]) for i in used} if len({owners[i] for i in used}) == 1 else {}


def _stretches(mask: Tensor) -> Columns:
    columns = mask.nonzero()[:, 0].tolist()
    ends = [bound for one, two in pairwise(columns) if two > one + 1 for bound in (one + 1, two)]
    return (columns[0], *ends, columns[-1] + 1)
