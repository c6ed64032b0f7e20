"""KernelSHAP: Shapley values of a picture's regions from a weighted linear regression.

captum's KernelShap draws from torch's global generator, which other threads share, and fits one sample at a
time; the regression is small enough to be done here exactly, with captum as the oracle in the parity tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import comb
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attrib.errors import InputError, UnknownName
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.baselines import BASELINE_HELP, BASELINES, Baseline, baseline_of, equal_notes
from attrib.methods.passes import laid_out
from attrib.methods.segments import SEGMENTS, grid, superpixels
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
            report = lambda fraction, row=row: question.on_progress((row + fraction) / len(regions))  # noqa: E731
            shares, difference[row], doubts[row] = self._shares(question, baseline, row, region, report)
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
            report = lambda fraction, row=row: question.on_progress((row + fraction) / len(parts))  # noqa: E731
            if int(part.max()) >= 0:
                shares, difference[row], doubts[row] = self._shares(question, baseline, row, part, report)
                values[row] = spread(shares, part).to(values)
        notes = (*equal_notes(question.x, baseline), *self._notes(parts, max(doubts)))
        return Finding(values, score, kind="tokens", delta=values.sum(1) - difference, notes=notes)

    def _regions(self, image: Tensor) -> Tensor:
        if self.segments == "grid":
            return grid(image, self.n_segments)
        return superpixels(image, self.n_segments)

    def _shares(
        self, question: Question, baseline: Tensor, row: int, region: Tensor, report: object
    ) -> tuple[Tensor, Tensor, float]:
        """Shapley values of the regions of one sample, f(x) − f(baseline), and how far the values may be off."""
        n = int(region.max()) + 1
        if n * self.n_samples > _MOST_ENTRIES:
            raise InputError(
                f"n_samples = {self.n_samples} sets of {n} regions: samples × regions may be {_MOST_ENTRIES} at most; "
                "ten samples for each region are plenty"
            )
        kept, weights = coalitions(n, self.n_samples, self.seed)
        ends = torch.tensor([[True], [False]]).expand(2, kept.shape[1])
        scores = _scores_of(question, baseline[row], row, region, torch.cat([ends, kept]), report)
        gains, whole = scores[2:] - scores[1], scores[0] - scores[1]
        shares = shapley_regression(kept, weights, gains, whole)
        all_sets = len(kept) == 2 ** kept.shape[1] - 2
        return shares, whole, 0.0 if all_sets else _uncertainty(kept, gains, shares)

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


def _scores_of(question: Question, baseline: Tensor, row: int, region: Tensor, kept: Tensor, report: object) -> Tensor:
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
        report(sum(map(len, scores)) / len(kept))  # type: ignore[operator]
    return torch.cat(scores)


def _uncertainty(kept: Tensor, gains: Tensor, shares: Tensor) -> float:
    """The standard error of a value as least squares has it, as a share of the largest value; 0 where all are 0.

    Sets come with their complements, of which one's error takes some of the other's: it is about half of that.
    """
    design = kept.double()
    reduced = design[:, :-1] - design[:, -1:]
    free = len(kept) - reduced.shape[1]
    largest = float(shares.abs().max())
    if free < 1 or not reduced.shape[1] or largest == 0:
        return 0.0
    variance = (gains - design @ shares).square().sum() / free
    return float((variance * torch.linalg.pinv(reduced.T @ reduced).diagonal().mean()).sqrt()) / largest


def coalitions(n: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sets of n regions (sets, n) bool, neither empty nor full, and the weight of each in the regression.

    All sets with the Shapley kernel (n − 1) / (C(n, k) k (n − k)) where they are no more than `samples`;
    else drawn from that kernel, each with its complement, and so of equal weight.
    """
    sizes = np.arange(1, n)
    if 2**n - 2 <= samples:
        proper = [s for s in product((False, True), repeat=n) if 0 < sum(s) < n]
        every = torch.tensor(proper, dtype=torch.bool).reshape(-1, n)
        return every, torch.tensor(
            [(n - 1) / (comb(n, k) * k * (n - k)) for k in every.sum(1).tolist()], dtype=torch.float64
        )
    rng = np.random.default_rng(seed)
    chance = 1 / (sizes * (n - sizes))
    kept = np.zeros((samples, n), dtype=bool)
    for i in range(0, samples, 2):
        kept[i, rng.choice(n, rng.choice(sizes, p=chance / chance.sum()), replace=False)] = True
        if i + 1 < samples:
            kept[i + 1] = ~kept[i]
    return torch.from_numpy(kept), torch.ones(samples, dtype=torch.float64)


def shapley_regression(kept: Tensor, weights: Tensor, gains: Tensor, whole: Tensor) -> Tensor:
    """argmin_φ Σ_S w_S (gain_S − Σ_{i∈S} φ_i)² with Σφ = whole: the constraint eliminates the last φ."""
    design = kept.double()
    reduced = design[:, :-1] - design[:, -1:]
    wanted = gains - design[:, -1] * whole
    root = weights.sqrt()
    if not wanted.isfinite().all():  # which no solver takes
        return torch.full_like(design[0], torch.nan)
    # gelsd: the smallest solution where the sets do not determine one
    if not reduced.shape[1]:  # a single region has it all
        return whole[None]
    first = torch.linalg.lstsq(root[:, None] * reduced, (root * wanted)[:, None], driver="gelsd").solution[:, 0]
    return torch.cat([first, (whole - first.sum())[None]])
