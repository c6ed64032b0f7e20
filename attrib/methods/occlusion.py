"""Occlusion: how far the score falls when a window of the picture is covered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attrib.errors import InputError, UnknownName
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.baselines import BASELINE_HELP, BASELINES, Baseline, baseline_of, equal_notes
from attrib.methods.passes import laid_out
from attrib.methods.units import UNIT_HELP, UNITS, drops, spread, units

KEEP = ("rest", "window")
Span = tuple[int, int]  # first row or column, and the one past the last
# without a graph, eight rows are as quick per row as it gets on a CPU
_MOST_ROWS = 8


@dataclass(frozen=True, eq=False)
class Occlusion(Method):
    """Mean over the windows W that cover a pixel of f(x) − f(x with W ← baseline). Zeiler & Fergus 2013.

    keep: "rest", as above and as captum; "window": of f(baseline with W ← x), as zennit where windows do not overlap.
    """

    window: int = setting(
        16, "Side of the covering square in pixels of the model's input.", low=1, high=224, for_kinds=("image",)
    )
    stride: int = setting(
        8, "Pixels from one window to the next; at most the window.", low=1, high=224, for_kinds=("image",)
    )
    baseline: Baseline = setting("zero", BASELINE_HELP, choices=BASELINES)
    unit: str = setting("word", UNIT_HELP, choices=UNITS, for_kinds=("text",))
    keep: str = setting(
        "rest",
        "What stays when a window is looked at: the rest of the picture (by how much does the score fall?), or the "
        "window alone (what score does it get by itself?).",
        choices=KEEP,
        advanced=True,
        for_kinds=("image",),
    )

    name: ClassVar[str] = "occlusion"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    single_pass: ClassVar[bool] = False
    memory_factor: ClassVar[float] = 0.7
    card: ClassVar[Card] = Card(
        title="Occlusion",
        idea="Cover one square (of a text: one word) after the other: where does covering make the score fall?",
        formula="mean over windows W ∋ pixel of f(x) − f(x with W ← baseline)",
        reference="Zeiler, Fergus 2013, arXiv:1311.2901",
        assumptions="What matters fits under one window or into one word, and the network still knows a covered input.",
        misleads="Redundant evidence is invisible: two eyes, or two words of praise, one covered, and the score stays. "
        "The cover is new evidence by itself (edges, a gap in a sentence), and its size decides what is seen.",
        cost="(number of windows or words + 1) F",
    )

    def explain(self, question: Question) -> Finding:
        self._check()
        if question.is_text:
            return self._of_text(question)
        places = windows(question.x.shape[2], question.x.shape[3], self.window, self.stride)
        question = laid_out(question, len(places), _MOST_ROWS)
        x = question.x
        baseline = baseline_of(self.baseline, question)
        score = question.settle()
        if self.keep == "rest":
            drops = score[:, None] - _scores(question, x, baseline, places)
        else:
            drops = _scores(question, baseline, x, places)
        total, cover = torch.zeros_like(score)[:, None, None].repeat(1, *x.shape[2:]), x.new_zeros(x.shape[2:])
        for place, ((top, bottom), (left, right)) in enumerate(places):
            total[:, top:bottom, left:right] += drops[:, place, None, None]
            cover[top:bottom, left:right] += 1
        notes = (*equal_notes(x, baseline), *self._cut(*x.shape[2:]))
        # every channel is covered at once, so all get the same value
        return Finding((total / cover)[:, None].expand_as(x).contiguous(), score, reduction="mean", notes=notes)

    def _of_text(self, question: Question) -> Finding:
        """Every word's or token's drop, shared equally among its tokens."""
        parts = units(question, self.unit)
        question = laid_out(question, len(parts), _MOST_ROWS)
        baseline = baseline_of(self.baseline, question)
        score = question.settle()
        fallen = drops(question, baseline, score, parts)
        values = torch.stack([spread(drop, p.to(drop.device)) for drop, p in zip(fallen, parts, strict=True)])
        return Finding(values, score, kind="tokens", notes=equal_notes(question.x, baseline))

    def _cut(self, height: int, width: int) -> tuple[str, ...]:
        if self.window >= max(height, width):
            told = (
                f"one window of {self.window} covers the whole input, {height} × {width}, so every pixel gets the same"
            )
            return (f"{told}: give a smaller window",)
        if self.window <= min(height, width):
            return ()
        return (
            f"a window of {self.window} was cut to the input, {min(self.window, height)} × {min(self.window, width)}",
        )

    def _check(self) -> None:
        if self.keep not in KEEP:
            raise UnknownName("what to keep", self.keep, KEEP)
        if self.window < 1:
            raise InputError(f"window {self.window}: a window is at least 1 pixel wide")
        if not 1 <= self.stride <= self.window:
            raise InputError(
                f"window {self.window}, stride {self.stride}: the stride must be from 1 to the window, "
                "or pixels between the windows would never be covered"
            )


def windows(height: int, width: int, window: int, stride: int) -> list[tuple[Span, Span]]:
    """Every window's rows and columns; the last of each direction is clipped at the border, as captum's."""

    def spans(size: int) -> list[Span]:
        steps = -(-max(0, size - window) // stride) + 1
        return [(i * stride, min(size, i * stride + window)) for i in range(steps)]

    return [(rows, columns) for rows in spans(height) for columns in spans(width)]


def _scores(question: Question, ground: Tensor, patch: Tensor, places: list[tuple[Span, Span]]) -> Tensor:
    """f(ground with the window ← patch), (batch, windows); both shaped like question.x."""
    x, n = question.x, len(places)
    scores: list[Tensor] = []
    for piece in torch.arange(len(x) * n, device=x.device).split(question.max_rows):
        rows = piece // n
        shown = ground[rows]
        for i, (row, place) in enumerate(zip(rows.tolist(), (piece % n).tolist(), strict=True)):
            (top, bottom), (left, right) = places[place]
            shown[i, :, top:bottom, left:right] = patch[row, :, top:bottom, left:right]
        with torch.no_grad():
            scores.append(question.scores(shown, rows))
        question.on_progress((int(piece[-1]) + 1) / (len(x) * n))
    return torch.cat(scores).reshape(len(x), n)
