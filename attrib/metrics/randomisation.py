"""Whether maps depend on what they should: the model's weights, the class, and on a little noise not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attrib.binding import BoundTarget
from attrib.errors import InputError
from attrib.methods.base import setting
from attrib.methods.passes import per_row
from attrib.metrics.agreement import alike, rank_correlations, ranked
from attrib.metrics.base import Better, Measured, Metric, MetricCard, Passes, Subject, nothing
from attrib.metrics.reseeding import Draw, cascading, layers_of, one_by_one, seed_of
from attrib.metrics.stacking import maps_of
from attrib.metrics.trial import Model, Trial

ONE_CLASS = "the model has one class: there is no other to ask for"
NO_CLASS = "the target is no class, so there is no other to ask for"


@dataclass(frozen=True)
class ParameterRandomisation(Metric):
    """Spearman's correlation of |map| with |map of the model with random weights|. Adebayo et al. 2018."""

    order: Literal["cascading", "independent"] = setting(
        "cascading",
        "cascading: from the output on, more and more layers are random, in the end all. independent: one group of "
        "layers at a time. The score is the mean over the stages.",
        choices=("cascading", "independent"),
    )
    stages: int = setting(3, "How many groups the layers are cut into; each costs a map.", low=1, high=200)
    draws: int = setting(3, "How often all is drawn anew, and averaged: single networks differ a lot.", low=1, high=50)

    name: ClassVar[str] = "parameter_randomisation"
    better: ClassVar[Better] = "lower"
    chance_is_best: ClassVar[bool] = True
    ordering: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="Parameter randomisation",
        question="Does the map change when the model has learned nothing?",
        formula="mean over stages and draws of Spearman(|map|, |map with random weights|); each layer has its own seed",
        reference="Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim 2018, arXiv:1810.03292",
        misleads="Where the input is, a map of a random network may be too: x ⊙ g of a digit on black is zero off the "
        "digit whatever the weights. A low score says that the map hangs on the weights, not that it is right.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(explanations=self.draws * min(self.stages, len(layers_of(model.module))))

    def score(self, trial: Trial, subject: Subject) -> Measured:
        if self.order not in ("cascading", "independent") or min(self.stages, self.draws) < 1:
            raise InputError(f"{self}: cascading or independent, one stage and one draw the least")
        if not layers_of(trial.model.module):
            return nothing(len(trial), "the model has no weights that could be random")
        planned = cascading if self.order == "cascading" else one_by_one
        stages = planned(len(layers_of(trial.model.module)), self.stages)
        found: list[list[Tensor]] = [[] for _ in stages]
        own, nearest = ranked(subject.maps.abs(), trial.allowed), torch.zeros_like(subject.maps)
        most = torch.full((len(trial),), -torch.inf, dtype=torch.float64)
        for number in range(self.draws):
            draw = Draw(trial.model.module, seed_of(trial.seed, -number - 1))
            for into, stage, maps in zip(found, stages, maps_of(trial, subject, draw, stages), strict=True):
                into.append(alike(own, ranked(maps.abs(), trial.allowed)))
                nearer = into[-1] > most
                most, nearest = torch.where(nearer, into[-1], most), torch.where(per_row(nearer, maps), maps, nearest)
                trial.on_progress((number + stage.share) / self.draws)
        at, curves = [stage.share for stage in stages], torch.stack([torch.stack(e).nanmean(0) for e in found], 1)
        values = curves.nanmean(1)
        words = tuple("" if v == v else "the maps with random weights are constant" for v in values.tolist())
        return Measured(values, words, curves, tuple(at), "share of the layers that are random", other=nearest)


@dataclass(frozen=True)
class RandomLogit(Metric):
    """Spearman's correlation of the map with that of a random other class. Sixt et al. 2020."""

    name: ClassVar[str] = "random_logit"
    better: ClassVar[Better] = "lower"
    chance_is_best: ClassVar[bool] = True
    ordering: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="Random logit",
        question="Does the map change when another class is asked for?",
        formula="Spearman(map of the class, map of a random other class)",
        reference="Sixt, Granz, Landgraf 2020, arXiv:1912.09818",
        misleads="Classes that look alike share their evidence, and then maps that are alike are right. With two "
        "classes an unsigned map cannot tell them apart, a signed one turns its sign.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(1, 1)

    def score(self, trial: Trial, subject: Subject) -> Measured:
        if trial.target.positive is None or trial.target.kind == "difference":
            return nothing(len(trial), NO_CLASS)
        classes = trial.outputs(1, lambda step, sample: trial.x[sample]).shape[2]
        if classes < 2:
            return nothing(len(trial), ONE_CLASS)
        own = trial.target.positive.cpu()
        steps = [int(trial.random(8, int(h[:12], 16)).integers(1, classes)) for h in trial.encoded.hashes]
        other = (own + torch.tensor(steps)) % classes
        maps = subject.again(trial.model, trial.encoded.x, BoundTarget(trial.target.kind, other))
        return Measured(rank_correlations(subject.maps, maps, trial.allowed), other=maps)


@dataclass(frozen=True)
class ClassSensitivity(Metric):
    """Spearman's correlation of the maps of the most and the least probable class. Rebuffi et al. 2020, § 4."""

    name: ClassVar[str] = "class_sensitivity"
    better: ClassVar[Better] = "lower"
    chance_is_best: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="Class sensitivity",
        question="Are the maps of the best and the worst class the same?",
        formula="Spearman(map of argmax f, map of argmin f); 1: the class does not matter, −1: opposed",
        reference="Rebuffi, Fong, Ji, Vedaldi 2020, arXiv:2004.02866",
        misleads="The least probable class may have no evidence at all, and its map be noise: then any method looks "
        "sensitive. With two classes an unsigned map cannot differ.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(1, 2)

    def score(self, trial: Trial, subject: Subject) -> Measured:
        logits = trial.outputs(1, lambda step, sample: trial.x[sample])[0]
        if logits.shape[1] < 2:
            return nothing(len(trial), ONE_CLASS)
        best, worst = logits.argmax(1).cpu(), logits.argmin(1).cpu()
        maps = [self._of(trial, subject, chosen) for chosen in (best, worst)]
        return Measured(rank_correlations(maps[0], maps[1], trial.allowed))

    def _of(self, trial: Trial, subject: Subject, classes: Tensor) -> Tensor:
        own = trial.target
        if own.kind == "logit" and own.positive is not None and bool((own.positive.cpu() == classes).all()):
            return subject.maps
        return subject.again(trial.model, trial.encoded.x, BoundTarget("logit", classes))


@dataclass(frozen=True)
class MaxSensitivity(Metric):
    """max over small δ of ‖A(x + δ) − A(x)‖ / ‖A(x)‖. Yeh et al. 2019, def. 3.1."""

    radius: float = setting(
        0.02, "How far δ goes in every number of x, as a share of the input's range.", low=0, high=1
    )
    n_samples: int = setting(10, "Random δ; each costs a map.", low=1, high=200)

    name: ClassVar[str] = "max_sensitivity"
    better: ClassVar[Better] = "lower"
    card: ClassVar[MetricCard] = MetricCard(
        title="Max-sensitivity",
        question="Does the map stay as it is when the input changes so little that nobody sees it?",
        formula="max over δ of ‖A(x + δ) − A(x)‖ / ‖A(x)‖, δ uniform within ±radius × (max x − min x)",
        reference="Yeh, Hsieh, Suggala, Inouye, Ravikumar 2019, arXiv:1901.09392",
        misleads="A map that knows nothing of the input never changes. Where the model itself jumps, a faithful map "
        "jumps with it.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(explanations=self.n_samples)

    def score(self, trial: Trial, subject: Subject) -> Measured:
        if self.n_samples < 1 or self.radius < 0:
            raise InputError(
                f"n_samples {self.n_samples}, radius {self.radius}: one sample the least, no negative radius"
            )
        x = trial.encoded.x
        spread = (x.flatten(1).amax(1) - x.flatten(1).amin(1)).reshape(-1, *[1] * (x.dim() - 1))
        own, worst = subject.maps * trial.allowed, torch.zeros(len(trial), dtype=torch.float64)
        for draw in range(self.n_samples):
            noise = torch.from_numpy(2 * trial.random(9, draw).random(tuple(x.shape[1:])) - 1).to(x)
            maps = subject.again(trial.model, x + self.radius * spread * noise, trial.target) * trial.allowed
            worst = torch.maximum(worst, (maps - own).flatten(1).norm(dim=1))
            trial.on_progress((draw + 1) / self.n_samples)
        size = own.flatten(1).norm(dim=1)
        words = tuple("" if one > 0 else "the map is zero everywhere" for one in size.tolist())
        return Measured(torch.where(size > 0, worst / size, torch.nan), words)
