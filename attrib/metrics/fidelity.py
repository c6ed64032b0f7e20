"""What happens to the score when parts of the input are taken away at random: infidelity and robust fidelity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.methods.base import setting
from attrib.methods.segments import grid, superpixels
from attrib.methods.units import units
from attrib.metrics.base import Better, Measured, Metric, MetricCard, Passes, Subject
from attrib.metrics.curves import BLANK_HELP, UNCHANGED
from attrib.metrics.trial import Model, Trial

_MOST_MASKS = 64  # held at once
_ROUNDING = 1e-6  # of the score
_NOTHING = "no random set removed anything: more samples, or a larger share"


def regions(trial: Trial, cut: str, n: int) -> list[Tensor]:
    """Per input, the number of every site's region, (*sites) long; −1: in none.

    cut: "grid" or "superpixels", about n of them; texts are cut into words whatever it says.
    """
    if trial.is_text:
        return units(trial.question, "word")
    if cut == "grid":
        return [grid(trial.x[0], n)] * len(trial)
    return [superpixels(x, n) for x in trial.encoded.x]


def hidden(parts: Tensor, gone: np.ndarray) -> Tensor:
    """(*sites) bool: the sites whose region is in `gone` (regions,)."""
    inside = parts >= 0
    found = torch.zeros(parts.shape, dtype=torch.bool)
    found[inside] = torch.from_numpy(gone)[parts[inside]]
    return found


def region_means(values: Tensor, parts: Tensor) -> np.ndarray:
    """(regions,): the mean of the map over each region."""
    inside = parts >= 0
    counts = torch.bincount(parts[inside])
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, parts[inside], values[inside].double())
    return (sums / counts.clamp_min(1)).numpy()


@dataclass(frozen=True)
class Infidelity(Metric):
    """E[(β IᵀA − (f(x) − f(x without I)))²] over random sets I of regions. Yeh et al. 2019, def. 2.1."""

    n_samples: int = setting(30, "Random sets; each costs a forward.", low=1, high=1000)
    share: float = setting(0.2, "How probable it is that a region is in the set.", low=0.01, high=0.99)
    n_regions: int = setting(196, "Of pictures: about as many squares; of texts, every word is a region.", low=2)
    blank: str = setting("auto", BLANK_HELP)

    name: ClassVar[str] = "infidelity"
    better: ClassVar[Better] = "lower"
    card: ClassVar[MetricCard] = MetricCard(
        title="Infidelity",
        question="Do the map's numbers say how far the score falls when random parts are removed?",
        formula="E[(β Σ_{i∈I} A_i − (f(x) − f(x without I)))²], β the best factor for this input (captum.metrics)",
        reference="Yeh, Hsieh, Suggala, Inouye, Ravikumar 2019, arXiv:1901.09392",
        misleads="It rewards what a linear guess can tell: a map of zeros is beaten only where removals act alone. "
        "The best factor forgives a wrong scale.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(self.n_samples + 1)

    def score(self, trial: Trial, subject: Subject) -> Measured:
        if self.n_samples < 2 or not 0 < self.share < 1:
            raise InputError(f"n_samples {self.n_samples}, share {self.share}: two sets the least, a share in (0, 1)")
        from captum.metrics import infidelity  # deferred: captum is slow to import

        parts, blank = regions(trial, "grid", self.n_regions), trial.blank(self.blank)
        drawn = [0]
        at_once = len(trial) * min(self.n_samples, -(-_MOST_MASKS // len(trial)))

        def removed(present: Tensor) -> tuple[Tensor, Tensor]:
            """captum repeats every input for some of the draws, one after the other."""
            times = len(present) // len(trial)
            draws = range(drawn[0], drawn[0] + times)
            drawn[0] += times
            gone = torch.stack([self._set(trial, p, draw) for p in parts for draw in draws]).double()
            return gone, present - gone

        touched = torch.zeros(len(trial), dtype=torch.bool)
        low, high = (torch.full((len(trial),), sign * torch.inf, dtype=torch.float64) for sign in (1, -1))

        def forward(present: Tensor, sample: Tensor) -> Tensor:
            scores = self._scores(trial, present, sample, blank)
            touched[sample[(present < 0.5).flatten(1).any(1)]] = True
            low.scatter_reduce_(0, sample, scores, "amin")
            high.scatter_reduce_(0, sample, scores, "amax")
            return scores

        maps = subject.maps * trial.allowed
        values = infidelity(
            forward, removed, torch.ones_like(maps), maps, additional_forward_args=torch.arange(len(trial)),
            n_perturb_samples=self.n_samples, max_examples_per_batch=at_once, normalize=True,
        )  # fmt: skip
        still, told = (
            ~touched | (high - low <= _ROUNDING * high.abs()),
            [UNCHANGED if one else _NOTHING for one in touched.tolist()],
        )
        words = tuple(said if one else "" for said, one in zip(told, still.tolist(), strict=True))
        return Measured(torch.where(still, torch.nan, values.detach().double()), words)

    def _set(self, trial: Trial, parts: Tensor, draw: int) -> Tensor:
        return hidden(parts, trial.random(5, draw).random(int(parts.max()) + 1) < self.share)

    def _scores(self, trial: Trial, present: Tensor, sample: Tensor, blank: Tensor) -> Tensor:
        """The explained number of the inputs that `present` (rows, *sites) leaves, sample[i] of row i."""

        def ask(rows: Tensor) -> Tensor:
            own = sample[rows.cpu()].to(trial.x.device)
            return trial.question.scores(trial.mixed(present[rows.cpu()] < 0.5, trial.x[own], blank[own]), own)

        return trial.asked(len(present), ask).cpu().double()


@dataclass(frozen=True)
class RobustFidelity(Metric):
    """Fid_α₁,₊ − Fid_α₂,₋: the explanation's regions go by α₁, all others by α₂. Zheng et al. 2024, def. 3."""

    alpha_1: float = setting(
        0.1, "How probable it is that a region of the explanation is removed for Fid₊.", low=0, high=1
    )
    alpha_2: float = setting(0.9, "How probable it is that any other region is removed for Fid₋.", low=0, high=1)
    share: float = setting(
        0.2, "How many of the regions are the explanation: those of the highest mean.", low=0.01, high=1
    )
    n_samples: int = setting(50, "Random removals for each of Fid₊ and Fid₋; each costs a forward.", low=1, high=1000)
    n_regions: int = setting(50, "Of pictures: about as many superpixels; of texts, every word is a region.", low=2)
    blank: str = setting("auto", BLANK_HELP)

    name: ClassVar[str] = "robust_fidelity"
    better: ClassVar[Better] = "higher"
    ordering: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="Robust fidelity",
        question="Is a little of the explanation missed more than most of the rest?",
        formula="Fid₊ − Fid₋; Fid₊ = f(x) − E f(x − part of the explanation), Fid₋ = f(x) − E f(x − part of the rest)",
        reference="Zheng et al. 2024, arXiv:2310.01820, on graphs; here regions stand for edges",
        misleads="With α₁ = 0.1 little of a small explanation goes and Fid₊ is near 0 for every map: Fid₋ decides.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(2 * self.n_samples + 2)

    def score(self, trial: Trial, subject: Subject) -> Measured:
        plus, minus, emptied = self._measured(trial, subject)
        still = (plus == 0) & (minus == 0) & (emptied == 0)
        words = tuple(UNCHANGED if one else "" for one in still.tolist())
        return Measured(torch.where(still, torch.nan, plus - minus), words)

    def both(self, trial: Trial, subject: Subject) -> tuple[Tensor, Tensor]:
        """(Fid₊, Fid₋), (batch,) each."""
        plus, minus, _ = self._measured(trial, subject)
        return plus, minus

    def _measured(self, trial: Trial, subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
        """(Fid₊, Fid₋, f(x) − f(nothing left)), (batch,) each."""
        if not (0 <= self.alpha_1 <= 1 and 0 <= self.alpha_2 <= 1 and 0 < self.share <= 1) or self.n_samples < 1:
            raise InputError(f"alpha_1, alpha_2 and share lie between 0 and 1, n_samples from 1: {self}")
        blank = trial.blank(self.blank)
        parts = regions(trial, "superpixels", self.n_regions)
        chosen = [self._explanation(trial, subject.maps[i], parts[i]) for i in range(len(trial))]
        n = self.n_samples

        def variant(step: Tensor, sample: Tensor) -> Tensor:
            gone = [
                self._gone(trial, parts[i], chosen[i], k) for k, i in zip(step.tolist(), sample.tolist(), strict=True)
            ]
            return trial.mixed(torch.stack(gone), trial.x[sample], blank[sample])

        found = trial.outcomes(2 * n + 2, variant)
        return found[0] - found[1 : n + 1].mean(0), found[0] - found[n + 1 : -1].mean(0), found[0] - found[-1]

    def _explanation(self, trial: Trial, values: Tensor, parts: Tensor) -> np.ndarray:
        means = region_means(values, parts)
        order = np.lexsort((trial.random(6).random(len(means)), -means))
        chosen = np.zeros(len(means), dtype=bool)
        chosen[order[: max(1, round(self.share * len(means)))]] = True
        return chosen

    def _gone(self, trial: Trial, parts: Tensor, chosen: np.ndarray, step: int) -> Tensor:
        """Step 0: nothing; then n times a part of the explanation, n times a part of the rest, and everything."""
        if step in (0, 2 * self.n_samples + 1):
            return (parts >= 0) & (step > 0)
        uniform = trial.random(7, step).random(len(chosen))
        if step <= self.n_samples:
            return hidden(parts, chosen & (uniform < self.alpha_1))
        return hidden(parts, ~chosen & (uniform < self.alpha_2))
