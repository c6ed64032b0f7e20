"""A rule on texts whose words are all the same: only positions tell the classes apart."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from attrib.rules.shadow import shadow
from attrib.truth.base import Proof, Truth
from attrib.truth.training import predicted
from attrib.truth.words import FIRST_FILLER, LENGTH, PAD, TRAINING, UNKNOWN, VOCABULARY, fitted, logits, share, texts

POSITION_RULE = "The class is whether the text reaches beyond five words; its words are one and the same word."
HALF = LENGTH // 2
_SHORT, _LONG = 0, 1


def position_only(seed: int, n: int) -> Truth:
    """Texts of one word said one to ten times; explained are those that say it more than five times.

    There is no [CLS] and no [SEP], so attention takes the mean of equal vectors: without positions the network's
    output is the same for every length. The mask holds the words beyond the fifth, the twins are without them.
    """
    started = time.process_time()
    ids, labels = _said(TRAINING // 2, seed)
    module, model = fitted(ids, labels, ("short", "long"), "position_only", seed, framed=False)
    held_out, wanted = _said(8 * n, seed + 1)
    found = predicted(logits(module), held_out)
    cut = held_out.clone()
    cut[:, HALF:] = PAD
    turned = predicted(logits(module), cut) == _SHORT
    good = ((found == wanted) & (wanted == _LONG) & turned).nonzero()[:n, 0]
    longest = int((held_out[good] != PAD).sum(1).max())
    mask = (held_out[good] != PAD)[:, :longest] & (torch.arange(longest) >= HALF)
    return Truth(
        "position_only", POSITION_RULE, model, texts(held_out[good]), wanted[good].tolist(), mask,
        float((found == wanted).double().mean()), _proofs(module, held_out, wanted), time.process_time() - started,
        texts(cut[good]), _on_positions(module, held_out[good], cut[good]),
    )  # fmt: skip


def _said(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(ids (n, LENGTH), labels): one word, drawn for every text, as often as is drawn for every text."""
    random = torch.Generator().manual_seed(seed)
    words = torch.randint(FIRST_FILLER, len(VOCABULARY), (n, 1), generator=random)
    times = torch.randint(1, LENGTH + 1, (n, 1), generator=random)
    return torch.where(torch.arange(LENGTH) < times, words, PAD), (times[:, 0] > HALF).long()


def _proofs(module: Any, ids: Tensor, wanted: Tensor) -> tuple[Proof, ...]:
    cut = ids.clone()
    cut[:, HALF:] = PAD
    first = len(VOCABULARY) - FIRST_FILLER
    other = torch.where(ids == PAD, PAD, (ids - FIRST_FILLER + 1) % first + FIRST_FILLER)
    short = torch.full_like(wanted, _SHORT)
    whole = predicted(logits(_blind(module)), ids)
    return (
        Proof("all words beyond the fifth go", "the class is short", share(module, cut, short)),
        Proof("the word becomes another", "nothing changes", share(module, other, wanted)),
        Proof("all positions become the same", "no length changes the class", share(_blind(module), cut, whole)),
    )


def _blind(module: Any) -> Any:
    """A twin for which every position is the mean of all."""
    twin: Any = shadow(module)
    table = twin.get_submodule("bert.embeddings.position_embeddings")
    table._parameters["weight"] = table.weight.mean(0, keepdim=True).expand_as(table.weight).clone()
    return twin


def _on_positions(module: Any, ids: Tensor, cut: Tensor) -> float:
    """By interventions: the share of the difference between a text and its twin that positions make, on average.

    Shapley's fair split between the words (or [UNK] for each of them) and the positions (or the mean of all).
    """
    nets = (module, _blind(module))
    scores = []
    for given in (ids, cut):
        emptied = torch.where(given == PAD, PAD, UNKNOWN)
        with torch.no_grad():
            both, alone = ([logits(net)(x)[:, _LONG].double() for net in nets] for x in (given, emptied))
        scores.append((both[0], (both[0] - both[1] + alone[0] - alone[1]) / 2))
    whole, by_position = (scores[0][k] - scores[1][k] for k in range(2))
    return float((by_position / whole).mean())
