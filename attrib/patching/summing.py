"""Differences times coefficients, added up over the columns of each site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attrib.patching.places import Columns, Place, numbers_of, width_of
from attrib.patching.sites import PatchSite


def summed(
    sites: Sequence[PatchSite],
    differences: Mapping[Place, Tensor],
    coefficients: Mapping[Place, Tensor],
    batch: int,
    tokens: int,
) -> Tensor:
    """(batch, site, position): Σ difference ⊙ coefficient over the site's columns; half precision in float32.

    What a model keeps for more positions than there are tokens, to fill its windows, is left out.
    """
    found: list[Tensor | None] = [None] * len(sites)
    for place, numbers in _by_place(sites).items():
        a, c = (_rows(tensor, batch)[:, :tokens] for tensor in (differences[place], coefficients[place]))
        columns = [sites[number].columns for number in numbers]
        for number, values in zip(numbers, _each(a, c, columns), strict=True):
            found[number] = values
    return torch.stack([values for values in found if values is not None], 1)


def _by_place(sites: Sequence[PatchSite]) -> dict[Place, list[int]]:
    places: dict[Place, list[int]] = {}
    for number, site in enumerate(sites):
        places.setdefault(site.place, []).append(number)
    return places


def _rows(tensor: Tensor, batch: int) -> Tensor:
    """(batch, tokens, width), also where the model has flattened batch and tokens."""
    tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
    return tensor.reshape(batch, -1, tensor.shape[-1])


def _each(a: Tensor, c: Tensor, columns: Sequence[Columns | None]) -> list[Tensor]:
    """(batch, tokens) for each entry of columns; None: all of them."""
    spans = [span for span in columns if span is not None]
    if len(spans) < len(columns):
        whole = torch.linalg.vecdot(a, c)
        if not spans:
            return [whole] * len(columns)
        some = iter(_each(a, c, spans))
        return [whole if span is None else next(some) for span in columns]
    product = a * c
    widths = {width_of(span) for span in spans}
    if len(widths) > 1:
        return [product[..., numbers_of(span)].sum(-1) for span in spans]
    wanted = [column for span in spans for column in numbers_of(span)]
    if wanted != list(range(product.shape[-1])):
        product = product[..., torch.tensor(wanted, device=product.device)]
    return list(product.unflatten(-1, (len(spans), widths.pop())).sum(-1).unbind(-1))
