"""What a map's own numbers say: whether they account for the score, how sparse it is, and whether it is the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attrib.attribution import Attribution
from attrib.metrics.agreement import correlations
from attrib.metrics.base import Better, Measured, Metric, MetricCard, Subject, nothing
from attrib.metrics.trial import Trial

NO_CLAIM = "the method makes no claim to account for the score"


def unaccounted(result: Attribution) -> Tensor | None:
    """(batch,): the share of the score that a result does not account for; None where its method makes no such claim.

    Of a result with a ledger, what its entries leave over; otherwise its completeness error.
    """
    size = result.score.cpu().double().abs().clamp_min(1e-12)
    if result.ledger is not None:
        booked = torch.stack([amount.cpu().double() for name, amount in result.ledger.items() if name != "unaccounted"])
        return (result.score.cpu().double() - booked.sum(0)).abs() / size
    return None if result.delta is None else result.delta.cpu().double().abs() / size


def gini(values: Tensor) -> Tensor:
    """(batch,): Σ (2i − n − 1) a_i / (n Σ a), a = |values| / max |values| + 1e-7 ascending. Chalasani et al. 2020.

    NaN where all are zero.
    """
    sizes = values.double().flatten(1).abs()
    largest = sizes.amax(1, keepdim=True)
    a = (sizes / torch.where(largest > 0, largest, torch.nan) + 1e-7).sort(1).values
    n = a.shape[1]
    weights = 2 * torch.arange(1, n + 1, dtype=a.dtype, device=a.device) - n - 1
    found: Tensor = (weights * a).sum(1) / (n * a.sum(1))
    return found


def entropy(values: Tensor) -> Tensor:
    """(batch,): −Σ p log p, p = |values| / Σ |values|, in nats. Bhatt et al. 2020."""
    a = values.double().flatten(1).abs()
    p = a / a.sum(1, keepdim=True)
    found: Tensor = torch.special.entr(p).sum(1)
    return found


def per_input(trial: Trial, maps: Tensor, number: object) -> Tensor:
    """(batch,): number((1, sites)) of each input's sites that count."""
    each = [number(row[inside][None]) for row, inside in zip(maps, trial.allowed, strict=True)]  # type: ignore[operator]
    return torch.cat(each).double()


@dataclass(frozen=True)
class Completeness(Metric):
    """The share of the score that the map, with its ledger, does not account for. Sundararajan et al. 2017, prop. 1."""

    name: ClassVar[str] = "completeness"
    better: ClassVar[Better] = "lower"
    of_references: ClassVar[bool] = False
    card: ClassVar[MetricCard] = MetricCard(
        title="Completeness",
        question="Do the map's numbers add up to the score that they explain?",
        formula="|Σ A − (f(x) − f(x′))| / |f(x)|; with a ledger |f(x) − Σ ledger| / |f(x)|",
        reference="Sundararajan, Taly, Yan 2017, arXiv:1703.01365; the ledger is this project's",
        misleads="Numbers may add up and still stand in the wrong places: f(x)/n on every pixel adds up exactly.",
    )

    def score(self, trial: Trial, subject: Subject) -> Measured:
        share = None if subject.attribution is None else unaccounted(subject.attribution)
        return nothing(len(trial), NO_CLAIM) if share is None else Measured(share.cpu())


@dataclass(frozen=True)
class Sparseness(Metric):
    """Gini index of the sizes. Chalasani et al. 2020."""

    name: ClassVar[str] = "sparseness"
    better: ClassVar[Better] = "neither"
    card: ClassVar[MetricCard] = MetricCard(
        title="Sparseness",
        question="Does the map point at little, or at everything?",
        formula="Gini index of |map|: 0 all alike, 1 a single pixel",
        reference="Chalasani et al. 2020, arXiv:1810.06583",
        misleads="It says nothing of whether the map is right: one pixel at random is as sparse as can be.",
    )

    def score(self, trial: Trial, subject: Subject) -> Measured:
        return Measured(per_input(trial, subject.maps, gini))


@dataclass(frozen=True)
class Complexity(Metric):
    """Entropy of the sizes. Bhatt et al. 2020."""

    name: ClassVar[str] = "complexity"
    better: ClassVar[Better] = "neither"
    card: ClassVar[MetricCard] = MetricCard(
        title="Complexity",
        question="How many pixels would one have to look at?",
        formula="entropy of |map| / Σ |map|, in nats",
        reference="Bhatt, Weller, Moura 2020, arXiv:2005.00631",
        misleads="As sparseness; and it grows with the number of pixels: compare maps of one size only.",
    )

    def score(self, trial: Trial, subject: Subject) -> Measured:
        return Measured(per_input(trial, subject.maps, entropy))


@dataclass(frozen=True)
class Recovery(Metric):
    """|Pearson correlation| of the map with the input itself. Nie et al. 2018."""

    name: ClassVar[str] = "recovery"
    better: ClassVar[Better] = "lower"
    chance_is_best: ClassVar[bool] = True
    applies_to: ClassVar[frozenset[str]] = frozenset({"image"})
    card: ClassVar[MetricCard] = MetricCard(
        title="Recovery",
        question="Is the map but the picture again?",
        formula="|Pearson(map, x)|: channel by channel where the map has channels, else with their mean",
        reference="Nie, Zhang, Patel 2018, arXiv:1805.07039",
        misleads="On a dark background a bright object is both the evidence and the picture: some correlation is "
        "deserved. A map that shows edges recovers the picture too, and scores low here: see the edge detector in "
        "the randomisation test.",
    )

    def score(self, trial: Trial, subject: Subject) -> Measured:
        x = trial.encoded.x.detach().cpu().double()
        values = None if subject.attribution is None else subject.attribution.values.detach().cpu().double()
        if values is not None and values.shape == x.shape:
            return Measured(correlations(values, x).abs())
        return Measured(correlations(subject.maps, x.mean(1)).abs())
