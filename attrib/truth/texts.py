"""A rule on texts: a word that turns the meaning of another."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from attrib.truth.base import Proof, Truth
from attrib.truth.training import predicted
from attrib.truth.words import (
    BAD,
    CLS,
    FIRST_FILLER,
    GOOD,
    LENGTH,
    NOT,
    SEP,
    TRAINING,
    VOCABULARY,
    fitted,
    logits,
    share,
    texts,
)

NEGATION_RULE = "good is positive and bad is negative, unless the word not stands right before it: then it is turned."


def negation(seed: int, n: int) -> Truth:
    """A token that turns the meaning of another; the inputs to explain all hold it."""
    started = time.process_time()
    ids, labels = _negated(TRAINING, seed)
    module, model = fitted(ids, labels, ("negative", "positive"), "negation", seed)
    held_out, wanted = _negated(8 * n, seed + 1)
    found = predicted(logits(module), held_out)
    with_not = (held_out == NOT).any(1)
    good = ((found == wanted) & with_not).nonzero()[:n, 0]
    return Truth(
        "negation", NEGATION_RULE, model, texts(held_out[good]), wanted[good].tolist(),
        torch.isin(held_out[good], torch.tensor([GOOD, BAD, NOT])), float((found == wanted).double().mean()),
        _negation_proofs(module, held_out[with_not], wanted[with_not], seed), time.process_time() - started,
    )  # fmt: skip


def _negated(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(ids (n, LENGTH + 2), labels): one of good and bad, and right before it, in a third of the texts, not."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(FIRST_FILLER, len(VOCABULARY), (n, LENGTH), generator=random)
    place = torch.randint(1, LENGTH, (n,), generator=random)
    word = torch.randint(0, 2, (n,), generator=random)
    turned = (torch.rand(n, generator=random) < 1 / 3).long()
    rows = torch.arange(n)
    ids[rows, place] = torch.where(word == 1, GOOD, BAD)
    ids[rows[turned == 1], place[turned == 1] - 1] = NOT
    ends = [torch.full((n, 1), end) for end in (CLS, SEP)]
    return torch.cat([ends[0], ids, ends[1]], 1), word ^ turned


def _negation_proofs(module: Any, ids: Tensor, wanted: Tensor, seed: int) -> tuple[Proof, ...]:
    random = torch.Generator().manual_seed(seed + 2)
    fillers = torch.randint(FIRST_FILLER, len(VOCABULARY), ids.shape, generator=random)
    without = torch.where(ids == NOT, fillers, ids)
    other_word = torch.where(ids == GOOD, BAD, torch.where(ids == BAD, GOOD, ids))
    other_fillers = torch.where(ids >= FIRST_FILLER, fillers, ids)
    return (
        Proof("not becomes a filler", "the class turns", share(module, without, 1 - wanted)),
        Proof("good and bad are exchanged", "the class turns", share(module, other_word, 1 - wanted)),
        Proof("all fillers are drawn again", "nothing changes", share(module, other_fillers, wanted)),
    )
