"""What speaks against a finding, in words: broken or empty maps, a score that is not accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attrib.methods.base import Finding

if TYPE_CHECKING:
    from attrib.attribution import Attribution

_NO_DIFFERENCE = 0.05  # of the score
_MOST_ON_FIRST = 0.45  # of all magnitudes of a text of at least four tokens


def own_notes(batch: Attribution, rows: Attribution) -> tuple[str, ...]:
    """The notes of some rows of `batch`: what holds for all of it, and what speaks against their own numbers."""
    parked = sinks(batch, batch.words)
    told = {*doubts(batch), *parked}
    kept = [note for note in batch.notes if note not in told]
    # where no note of the batch tells of a sink, the model is none to have one
    own = sinks(rows, rows.words) if set(parked) & set(batch.notes) else []
    return (*kept, *doubts(rows), *own)


def doubts(finding: Finding | Attribution) -> list[str]:
    """What speaks against the numbers themselves: no number, all zero, a score that is not accounted for."""
    found = []
    flat = finding.values.detach().flatten(1)
    measured = (finding.parts or {}).get("measured")
    if measured is not None:  # the others are NaN on purpose
        flat = flat.masked_fill(~measured.flatten(1), 0.0)
    broken = (~flat.isfinite()).any(1).nonzero()[:, 0].tolist()
    empty = (flat == 0).all(1).nonzero()[:, 0].tolist()
    unscored = (~finding.score.detach().isfinite()).nonzero()[:, 0].tolist()
    if unscored:
        found.append(f"the model's score{_of(unscored, finding)} is NaN or infinite: nothing can explain it")
    if broken:
        found.append(f"the map{_of(broken, finding)} holds NaN or infinite values and means nothing")
    if empty:
        found.append(f"the map{_of(empty, finding)} is zero everywhere: the method found nothing")
    if finding.delta is not None:
        relative = (finding.delta.abs() / finding.score.abs().clamp_min(1e-12)).max().item()
        if relative > _left_open(finding):
            share = f"{relative:.1%} of" if relative < 0.05 else f"{relative:.0%} of"
            share = share if relative < 10 else "more than ten times"
            found.append(f"the map does not account for {share} the score (completeness error)")
        found += _against_baseline(finding, flat)
    if finding.ledger is not None and not unscored:
        found += _absorbed(finding.ledger, finding.score)
    if finding.coverage is not None and finding.coverage.uncovered:
        names = ", ".join(list(finding.coverage.uncovered)[:5])
        found.append(f"no rule covers {names}: the plain gradient was used there")
    return found


def _left_open(finding: Finding | Attribution) -> float:
    """The share of a score that may stay unaccounted without a word: little under rules, which claim to be exact."""
    half = finding.score.dtype in (torch.float16, torch.bfloat16)
    return 0.05 if half or finding.coverage is None else 0.005


def _against_baseline(finding: Finding | Attribution, flat: Tensor) -> list[str]:
    """A note where a map explains the difference to a baseline, and there is hardly any."""
    if finding.delta is None or finding.ledger is not None:
        return []
    explained = (flat.sum(1) - finding.delta) / finding.score.abs().clamp_min(1e-12)
    least = explained.abs().argmin()
    if not explained[least].abs() < _NO_DIFFERENCE:
        return []
    note = (
        f"the baseline has nearly the score of the input: the map explains a difference of {explained[least]:z.1%} of "
        "it, and may show nothing that matters; another baseline tells more"
    )
    return [note]


def _absorbed(ledger: dict[str, Tensor], score: Tensor) -> list[str]:
    """A note where little of the score reached the input, and what took the rest."""
    kept = sum((ledger[name] for name in ("input", "position") if name in ledger), torch.zeros_like(score))
    share = (kept / score.where(score != 0, torch.ones_like(score))).abs().min().item()
    if not share <= 0.5 or len(ledger) == 1:
        return []
    others = [name for name in ledger if name not in ("input", "position")]
    taken = max(others, key=lambda name: ledger[name].abs().sum().item())
    rest = "is unaccounted for" if taken == "unaccounted" else f"was absorbed by {taken}"
    return [f"only {share:.2g} of the score reached the input; most {rest} (see the ledger)"]


def sinks(finding: Finding | Attribution, words: Sequence[Sequence[int | None]] | None) -> list[str]:
    """A note where LRP puts most on the first token of a text, and that is an ordinary word.

    words: of a causal language model's inputs; None for other models.
    """
    if words is None or finding.ledger is None or finding.values.dim() != 2 or finding.values.shape[1] < 4:
        return []
    sizes = finding.values.detach().abs()
    shares = sizes[:, 0] / sizes.sum(1).clamp_min(1e-12)
    plain = [float(share) for share, row in zip(shares, words, strict=False) if row and row[0] is not None]
    if not plain or max(plain) < _MOST_ON_FIRST:
        return []
    note = (
        f"the first token holds {max(plain):.0%} of all magnitudes: language models park attention there whatever it "
        "says (an attention sink), and rules that keep attention constant show it; compare with preset attn_lrp"
    )
    return [note]


def _of(indices: list[int], finding: Finding | Attribution) -> str:
    """Which inputs; nothing where there is one alone."""
    if len(finding.score) == 1:
        return ""
    return f" of input {', '.join(str(i) for i in indices[:5])}" + (" and others" if len(indices) > 5 else "")
