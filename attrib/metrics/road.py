"""ROAD: remove and debias. Pixels go by noisy linear imputation, which leaves no hole to be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.methods.base import setting
from attrib.metrics.base import Better, Measured, Metric, MetricCard, Passes, Subject, nothing
from attrib.metrics.curves import UNCHANGED, ranks
from attrib.metrics.trial import Model, Trial, Variant

# how much of a neighbour a missing pixel is: (rows down, columns right) -> weight
_NEIGHBOURS = {
    (0, 1): 1 / 6, (0, -1): 1 / 6, (1, 0): 1 / 6, (-1, 0): 1 / 6,
    (1, 1): 1 / 12, (1, -1): 1 / 12, (-1, 1): 1 / 12, (-1, -1): 1 / 12,
}  # fmt: skip


def imputed(picture: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """The picture (channel, height, width) with every pixel in `gone` the weighted mean of its eight neighbours.

    All at once: one sparse system, solved for every channel. Rong et al. 2022, § 4.3. Neighbours outside the picture
    do not count.
    """
    from scipy.sparse import coo_matrix  # deferred: half a second

    height, width = gone.shape
    rows, columns = gone.nonzero()
    if not len(rows):
        return picture.copy()
    number = np.full(gone.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    known, diagonal = np.zeros((len(rows), len(picture))), np.zeros(len(rows))
    here, there, weights = [np.arange(len(rows))], [np.arange(len(rows))], [diagonal]
    for (down, right), weight in _NEIGHBOURS.items():
        r, c = rows + down, columns + right
        inside = ((r >= 0) & (r < height) & (c >= 0) & (c < width)).nonzero()[0]
        diagonal[inside] += weight
        r, c = r[inside], c[inside]
        missing = gone[r, c]
        known[inside[~missing]] += weight * picture[:, r[~missing], c[~missing]].T
        here.append(inside[missing])
        there.append(number[r[missing], c[missing]])
        weights.append(np.full(int(missing.sum()), -weight))
    places = (np.concatenate(here), np.concatenate(there))
    system = coo_matrix((np.concatenate(weights), places), (len(rows), len(rows))).tocsc()
    filled = picture.copy()
    if gone.all():  # nothing is known: every constant would do
        filled[:, rows, columns] = picture.mean((1, 2))[:, None]
    else:
        filled[:, rows, columns] = _solved(system, known).T
    return filled


def _solved(system: Any, known: np.ndarray) -> np.ndarray:
    """The system is symmetric; told so, SuperLU is up to thirty times as fast."""
    from scipy.sparse.linalg import splu

    options = {"SymmetricMode": True}
    solver = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    return solver.solve(known)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ROAD(Metric):
    """How often the class stays on top while the most relevant pixels are imputed. Rong et al. 2022."""

    percentages: tuple[float, ...] = setting(
        (10, 30, 50, 70, 90), "Per cents of the pixels to remove. The authors take 1, 3, …, 99: ten times as long."
    )
    read: Literal["correct", "probability"] = setting(
        "correct", "correct: whether the class is still on top, as the authors do; probability: how probable it is.",
        choices=("correct", "probability"),
    )  # fmt: skip
    noise: float = setting(0.01, "Standard deviation of the noise on imputed pixels, after preprocessing.", low=0.0)

    name: ClassVar[str] = "road"
    better: ClassVar[Better] = "lower"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image"})
    ordering: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="ROAD",
        question="Is the class lost when what the map marks is smoothed away, leaving no hole behind?",
        formula="mean over shares of 1[f(x with the top share imputed) is still the class]",
        reference="Rong, Leemann, Borisov, Kasneci, Kasneci 2022, arXiv:2202.00449",
        misleads="Imputation from the surroundings removes small marks well and large ones badly: the middle of a "
        "large hole is a guess. For one picture the score has as many values as there are shares.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(len(self.percentages))

    def score(self, trial: Trial, subject: Subject) -> Measured:
        if not self.percentages or not all(0 < p < 100 for p in self.percentages):
            raise InputError(f"percentages = {self.percentages}: give numbers between 0 and 100")
        if self.read == "correct" and trial.target.kind not in ("logit", "log_probability"):
            return nothing(len(trial), "the target is no class, so none can be lost; take read='probability'")
        order = ranks(subject.maps, trial.allowed, trial.drawn(3))
        pictures = trial.x.detach().cpu().double().numpy()
        pixels = order[0].numel()

        def variant(step: Tensor, sample: Tensor) -> Tensor:
            made = [self._removed(trial, pictures[i], order[i], int(pixels * self.percentages[k] / 100), k)
                    for k, i in zip(step.tolist(), sample.tolist(), strict=True)]  # fmt: skip
            return torch.stack(made).to(trial.x)

        curves, still = self._read(trial, variant)
        words = tuple(UNCHANGED if one else "" for one in still.tolist())
        at = tuple(p / 100 for p in self.percentages)
        return Measured(torch.where(still, torch.nan, curves.mean(1)), words, curves, at, "share of the input")

    def _removed(self, trial: Trial, picture: np.ndarray, order: Tensor, count: int, step: int) -> Tensor:
        gone = (order < count).numpy()
        filled = imputed(picture, gone)
        noise = trial.random(4, step).standard_normal(picture.shape)
        return torch.from_numpy(filled + self.noise * noise * gone)

    def _read(self, trial: Trial, variant: Variant) -> tuple[Tensor, Tensor]:
        """(batch, shares): what is read; (batch,): whether the model said the same of all that was left."""
        n = len(self.percentages)
        if self.read == "probability":
            found = trial.outcomes(n, variant).T
            return found, _same(found[..., None])
        logits = trial.outputs(n, variant).transpose(0, 1).cpu()
        wanted = trial.target.positive
        assert wanted is not None  # of a logit
        return (logits.argmax(2) == wanted.cpu()[:, None]).double(), _same(logits)


def _same(found: Tensor) -> Tensor:
    """(batch,): whether all of (batch, shares, numbers) are those of the first of two or more shares."""
    if found.shape[1] < 2:
        return torch.zeros(len(found), dtype=torch.bool)
    return (found == found[:, :1]).flatten(1).all(1)
