"""Whether a tokenizer is the model's own: by size, by trained word embeddings, and by the config's special ids.

Two vocabularies of one size cannot be told apart by their sizes. But a trained model has learned that two entries that
differ in a leading space or a capital only ("the", " the", "The") mean nearly the same: their embeddings are alike.
With another model's tokenizer they are as unlike as any two. Where the table shows no sign of training, nothing is
concluded. Mean cosines measured: right tokenizers .25 (MiniLM) and .59 (SmolLM2), permuted, shifted and exchanged ones
below .005, random tables 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attrib.errors import UnsupportedModel
from attrib.models.tokens import token_text

_SPECIAL = ("bos", "eos", "pad", "cls", "sep", "mask")
_MARKERS = ("##", "Ġ", "▁", "</w>", "@@")  # of a word's beginning, middle or end
_FEWEST, _MOST = 500, 2000  # pairs: the first ones, which are the most frequent
_TRAINED = 1.5  # times as near as the nearest of so many random directions: no random table
_UNLIKE = 1 / 20  # of how near the nearest are; right tokenizers reach .07 after 50 steps of training, .6 in the end


def check_vocabulary(module: Any, tokenizer: Any, name: str) -> None:
    """Raise UnsupportedModel where the tokenizer cannot be this model's."""
    if not callable(getattr(tokenizer, "convert_ids_to_tokens", None)):
        raise UnsupportedModel(
            f"{type(tokenizer).__name__} is no transformers tokenizer; give AutoTokenizer.from_pretrained(...)"
        )
    table, entries = module.get_input_embeddings().weight, tokenizer.get_vocab()
    rows, known = len(table), len(tokenizer)
    highest = max(entries.values(), default=-1)
    # tables are padded to round numbers, by a few hundred rows at most
    if known == 0 or highest >= rows or rows > 1.1 * known + 1000:
        raise UnsupportedModel(
            f"the tokenizer is not {name}'s: it knows {known} tokens (ids up to {highest}), the model {rows}; "
            "give the tokenizer that the model was trained with"
        )
    twins = _twins(entries)
    if len(twins) >= _FEWEST and _are_strangers(table.detach(), twins):
        one, other = (token_text(tokenizer, int(i)) for i in twins[0])
        raise UnsupportedModel(
            f"the tokenizer is not {name}'s: {len(twins)} pairs of tokens that differ in capitals or their place in a "
            f"word alone, such as {one!r} and {other!r}, are no more alike to the model than any others; give the "
            "tokenizer that the model was trained with"
        )


def doubts(module: Any, tokenizer: Any) -> tuple[str, ...]:
    """What is odd about the tokenizer, for the reader of a result: the config's special ids that are ordinary in it.

    No error, because configs are written with ids that were never used.
    """
    rows = len(module.get_input_embeddings().weight)
    special = {*tokenizer.all_special_ids}
    special |= {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    odd = [
        f"{kind}_token_id {i}, here {token_text(tokenizer, i)!r}"
        for kind, i in _configured(module.config)
        if 0 <= i < min(rows, len(tokenizer)) and i not in special
    ]
    if not odd:
        return ()
    told = "; ".join(odd)
    return (f"the tokenizer may be another model's: ordinary tokens of it are special to the model's config ({told})",)


def _configured(config: Any) -> Iterator[tuple[str, int]]:
    for kind in _SPECIAL:
        given = getattr(config, f"{kind}_token_id", None)
        yield from ((kind, i) for i in (given if isinstance(given, list) else [given]) if isinstance(i, int))


def _twins(entries: dict[str, int]) -> Tensor:
    """(pairs, 2): the ids of two entries that differ in capitals or markers only, in the vocabulary's order."""
    groups: dict[str, list[int]] = {}
    for entry, i in sorted(entries.items(), key=lambda item: item[1]):
        text = entry
        for marker in _MARKERS:
            text = text.removeprefix(marker).removesuffix(marker)
        if len(text) > 1:
            groups.setdefault(text.strip().lower(), []).append(i)
    pairs = [group[:2] for group in groups.values() if len(group) > 1]
    return torch.tensor(pairs[:_MOST], dtype=torch.long)


def _are_strangers(table: Tensor, twins: Tensor) -> bool:
    """Whether embeddings are structured, but those of twins no more alike than those of strangers."""
    vectors = table[twins.flatten().to(table.device)].float()
    pairs = normalize(vectors - vectors.mean(0), dim=1).view(len(twins), 2, -1)
    first, second = pairs[:, 0], pairs[:, 1]
    alike = float((first * second).sum(1).mean() - (first * second.roll(1, 0)).sum(1).mean())
    cosines = (first @ first.T).fill_diagonal_(-1)
    nearest = float(cosines.amax(1).mean())
    by_chance = math.sqrt(2 * math.log(len(first)) / table.shape[1])  # the largest of n cosines of random directions
    return nearest > _TRAINED * by_chance and alike < _UNLIKE * nearest
