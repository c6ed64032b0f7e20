"""Texts in parts that come and go together: words or single tokens, for occlusion and KernelSHAP."""

from __future__ import annotations

import torch
from torch import Tensor

from attrib.errors import UnknownName
from attrib.methods.base import Question
from attrib.methods.baselines import special_tokens
from attrib.models.prefix import Prefix, keeps_prefixes

_CPU_TOKENS = 512
# of one forward behind a kept beginning: more are no quicker, and each has keys and values of all tokens
_MOST_ROWS = 16
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
    """Per sample (parts,): f(x) − f(x without that part).

    Many parts of any samples in one forward; or, of a causal model, what comes before a part computed once.
    """
    read = question.extra.get("read_at")
    if read is not None and keeps_prefixes(question.model, question.twin, question.x[:1, : int(read[0]) + 1]):  # type: ignore[arg-type]
        return [_drops_behind(question, row, baseline, score, p) for row, p in enumerate(parts)]
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


def _drops_behind(question: Question, row: int, baseline: Tensor, score: Tensor, parts: Tensor) -> Tensor:
    """(parts,) of one sample of a causal model: each forward begins with the first token that changes.

    What comes behind the token that is read is not run, and nothing falls with it.
    """
    stop = int(question.extra["read_at"][row]) + 1
    x, empty = question.x[row, :stop], baseline[row, :stop]
    first = [int((parts == part).nonzero()[0]) for part in range(int(parts.max()) + 1)]
    order = sorted((part for part in range(len(first)) if first[part] < stop), key=first.__getitem__)
    found, prefix, done = score.new_zeros(len(first)), Prefix(question.model, question.twin), 0  # type: ignore[arg-type]
    while done < len(order):
        begin = first[order[done]]
        rows = max(1, min(_MOST_ROWS, _tokens_at_once(question) // (stop - begin)))
        group = torch.tensor(order[done : done + rows], device=x.device)
        prefix.extend(x[None], begin)
        hit = parts[None, begin:stop].to(x.device) == group[:, None]
        logits = prefix.logits(torch.where(hit[:, :, None], empty[begin:], x[begin:]))
        found[group] = score[row] - question.target.scores(logits, torch.full_like(group, row))
        done += rows
        question.on_progress((row + min(1.0, done / len(order))) / len(score))
    return found


def _tokens_at_once(question: Question) -> int:
    """On a CPU a forward of a few hundred tokens is as quick per token as any; on others, what fits into memory."""
    if question.x.device.type == "cpu":
        return _CPU_TOKENS
    return question.max_rows * question.x.shape[1]
