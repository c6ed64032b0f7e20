"""KernelSHAP: Shapley values of a picture's regions from a weighted linear regression.

captum's KernelShap draws from torch's global generator, which other threads share, and fits one sample at a
time; the regression is small enough to be done here exactly, with captum as the oracle in the parity tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attrib.errors import InputError, UnknownName
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.baselines import BASELINE_HELP, BASELINES, Baseline, baseline_of, equal_notes
from attrib.methods.passes import laid_out
from attrib.methods.segments import SEGMENTS, grid, superpixels
from attrib.methods.shapley import coalitions, shapley_regression, uncertainty
from attrib.methods.units import UNIT_HELP, UNITS, spread, units

# without a graph, eight rows are as quick per row as it gets on a CPU
_MOST_ROWS = 8
_MOST_ENTRIES = 100_000_000  # of the regression's design: 8 bytes each


@dataclass(frozen=True, eq=False)
class KernelSHAP(Method):
    """argmin_φ Σ_S k(S) (f(x_S) − f(x_∅) − Σ_{i∈S} φ_i)² with Σφ = f(x) − f(x_∅). Lundberg & Lee 2017, theorem 2."""

    segments: str = setting(
        "grid", "Regions that come and go together: grid, or slic (superpixels).", choices=SEGMENTS,
        for_kinds=("image",),
    )  # fmt: skip
    n_segments: int = setting(
        49, "About how many regions; the grid takes the nearest square.", low=2, high=400, for_kinds=("image",)
    )
    n_samples: int = setting(
        500,
        {
            "image": "Random sets of regions; one forward each. All sets, if there are no more.",
            "text": "Random sets of words or tokens; one forward each. All sets, if there are no more.",
        },
        low=4,
        high=10_000,
    )
    baseline: Baseline = setting("zero", BASELINE_HELP, choices=BASELINES)
    unit: str = setting("word", UNIT_HELP, choices=UNITS, for_kinds=("text",))
    seed: int = setting(0, "The same seed gives the same sets on every device.", low=0, advanced=True)

    name: ClassVar[str] = "kernel_shap"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    single_pass: ClassVar[bool] = False
    memory_factor: ClassVar[float] = 0.7
    card: ClassVar[Card] = Card(
        title="KernelSHAP",
        idea="Share the score out among the regions (of a text: the words) as a fair split of a joint gain: what "
        "each adds on average, whatever else is shown.",
        formula="Shapley values φ of the regions by Shapley-kernel regression; a pixel or token gets φ / (the region's "
        "size)",
        reference="Lundberg, Lee 2017, arXiv:1705.07874",
        assumptions="A region replaced by the baseline counts as absent, and inputs with holes mean something.",
        misleads="The regions are chosen beforehand: what crosses their borders is blurred. With few samples "
        "the values are a noisy estimate although they always add up to the score difference.",
        cost="(n_samples + 2) F",
    )

    def explain(self, question: Question) -> Finding:
        if self.segments not in SEGMENTS:
            raise UnknownName("segmentation", self.segments, SEGMENTS)
        if self.n_samples < 4 or self.n_segments < 2:
            raise InputError(f"n_samples = {self.n_samples}, n_segments = {self.n_segments}: use at least 4 and 2")
        question = laid_out(question, self.n_samples, _MOST_ROWS)
        baseline = baseline_of(self.baseline, question)
        score = question.settle()
        if question.is_text:
            return self._of_text(question, baseline, score)
        regions = [self._regions(image) for image in question.x]
        values, difference = torch.empty_like(question.x), torch.empty_like(score)
        doubts = [0.0] * len(regions)
        for row, region in enumerate(regions):
            shares, difference[row], doubts[row] = self._shares(question, baseline, row, region)
            density = shares / torch.bincount(region.flatten()) / question.x.shape[1]
            values[row] = density[region].to(values.dtype)
        delta = values.flatten(1).sum(1) - difference
        notes = (*equal_notes(question.x, baseline), *self._notes(regions, max(doubts)))
        return Finding(values, score, delta=delta, notes=notes)

    def _of_text(self, question: Question, baseline: Tensor, score: Tensor) -> Finding:
        """Words or tokens are the players; special tokens are always there."""
        parts = units(question, self.unit)
        values, difference = score.new_zeros(question.x.shape[:2]), torch.zeros_like(score)
        doubts = [0.0] * len(parts)
        for row, part in enumerate(parts):
            if int(part.max()) >= 0:
                shares, difference[row], doubts[row] = self._shares(question, baseline, row, part)
                values[row] = spread(shares, part).to(values)
        notes = (*equal_notes(question.x, baseline), *self._notes(parts, max(doubts)))
        return Finding(values, score, kind="tokens", delta=values.sum(1) - difference, notes=notes)

    def _regions(self, image: Tensor) -> Tensor:
        if self.segments == "grid":
            return grid(image, self.n_segments)
        return superpixels(image, self.n_segments)

    def _shares(self, question: Question, baseline: Tensor, row: int, region: Tensor) -> tuple[Tensor, Tensor, float]:
        """Shapley values of the regions of one sample, f(x) − f(baseline), and how far the values may be off."""
        n = int(region.max()) + 1
        if n * self.n_samples > _MOST_ENTRIES:
            raise InputError(
                f"n_samples = {self.n_samples} sets of {n} regions: samples × regions may be {_MOST_ENTRIES} at most; "
                "ten samples for each region are plenty"
            )
        kept, weights = coalitions(n, self.n_samples, self.seed)
        ends = torch.tensor([[True], [False]]).expand(2, kept.shape[1])
        scores = _scores_of(question, baseline[row], row, region, torch.cat([ends, kept]))
        gains, whole = scores[2:] - scores[1], scores[0] - scores[1]
        shares = shapley_regression(kept, weights, gains, whole)
        all_sets = len(kept) == 2 ** kept.shape[1] - 2
        return shares, whole, 0.0 if all_sets else uncertainty(kept, gains, shares)

    def _notes(self, regions: list[Tensor], doubt: float) -> tuple[str, ...]:
        """doubt: the values' typical error as a share of the largest."""
        most = max(int(region.max()) + 1 for region in regions)
        if 2**most - 2 <= self.n_samples:
            return ()
        if self.n_samples < 2 * most:
            return (f"{self.n_samples} samples are few for {most} regions: the values are little more than noise",)
        if not 0.02 < doubt < float("inf"):
            return ()
        estimate = (
            f"an estimate from {self.n_samples} random sets: one value is off by {doubt:.0%} of the largest or less"
        )
        return (f"{estimate}; four times as many sets halve that",)


def _scores_of(question: Question, baseline: Tensor, row: int, region: Tensor, kept: Tensor) -> Tensor:
    """f of sample `row` with only the kept regions shown, (sets,) float64 on the CPU."""
    scores = []
    # −1, what is in no region, reads the last column: always there
    kept = torch.cat([kept, torch.ones_like(kept[:, :1])], 1)
    for part in kept.split(question.max_rows):
        present = part[:, region].to(question.x.device)
        shown = present[:, :, None] if question.is_text else present[:, None]
        rows = torch.full((len(part),), row, device=question.x.device)
        with torch.no_grad():
            scores.append(question.scores(torch.where(shown, question.x[row], baseline), rows).cpu().double())
        done = sum(map(len, scores)) / len(kept)
        question.on_progress((row + done) / len(question.x))
    return torch.cat(scores)
