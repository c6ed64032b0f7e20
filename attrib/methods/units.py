"""Texts in parts that come and go together: words or single tokens, for occlusion and KernelSHAP."""

from __future__ import annotations

import torch
from torch import Tensor

from attrib.errors import UnknownName
from attrib.methods.base import Question
from attrib.methods.baselines import special_tokens

UNITS = ("word", "token")
UNIT_HELP = "What comes and goes together: the tokens of a word, or each token alone."


def units(question: Question, unit: str) -> list[Tensor]:
    """Per sample (tokens,) long: the number of each token's part, without gaps; −1: special token or padding.

    White space between words is a part by itself. Without known words every token is one.
    """
    if unit not in UNITS:
        raise UnknownName("unit", unit, UNITS)
    special = special_tokens(question).cpu()
    found = []
    for row, outside in enumerate(special):
        of_word: dict[int, int] = {}
        parts = torch.full(outside.shape, -1)
        last = -1
        words = question.words[row] if unit == "word" and question.words is not None else ()
        for token in (~outside).nonzero()[:, 0].tolist():
            word = words[token] if token < len(words) else None
            if word is None or word not in of_word:
                last += 1
                parts[token] = last
                if word is not None:
                    of_word[word] = last
            else:
                parts[token] = of_word[word]
        found.append(parts)
    return found


def spread(shares: Tensor, parts: Tensor) -> Tensor:
    """(tokens,): every part's share in equal pieces among its tokens; 0 outside."""
    inside = parts >= 0
    values = shares.new_zeros(parts.shape)
    counts = torch.bincount(parts[inside], minlength=len(shares)).to(shares)
    values[inside] = (shares / counts.clamp_min(1))[parts[inside]]
    return values


def covered(question: Question, rows: Tensor, places: Tensor, parts: list[Tensor], baseline: Tensor) -> Tensor:
    """x of sample rows[i] with the tokens of its part places[i] replaced by the baseline."""
    hit = torch.stack([parts[row] for row in rows.tolist()]).to(rows.device) == places[:, None]
    return torch.where(hit[:, :, None], baseline[rows], question.x[rows])


def drops(question: Question, baseline: Tensor, score: Tensor, parts: list[Tensor]) -> list[Tensor]:
    """Per sample (parts,): f(x) − f(x without that part), many parts of any samples in one forward."""
    sizes = torch.tensor([int(p.max()) + 1 for p in parts])
    all_rows = torch.repeat_interleave(torch.arange(len(parts)), sizes).to(question.x.device)
    all_places = torch.cat([torch.arange(int(n)) for n in sizes]).to(question.x.device)
    found = score.new_zeros(len(all_rows))
    for piece in torch.arange(len(all_rows), device=question.x.device).split(question.max_rows):
        rows = all_rows[piece]
        x = covered(question, rows, all_places[piece], parts, baseline)
        with torch.no_grad():
            found[piece] = score[rows] - question.scores(x, rows)
        question.on_progress((int(piece[-1]) + 1) / len(all_rows))
    return list(found.split(sizes.tolist()))
