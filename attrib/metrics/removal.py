"""How the probability moves when what a map marks is removed, or put back: deletion, insertion and their kin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.methods.base import setting
from attrib.metrics.base import Better, Measured, Metric, MetricCard, Passes, Subject
from attrib.metrics.curves import BLANK_HELP, Course, area, measured_along, outcomes_along, sizes
from attrib.metrics.remains import everything, outcomes
from attrib.metrics.trial import Model, Trial

Laid = Callable[[Trial, Tensor, Tensor], Course]


@dataclass(frozen=True)
class Deletion(Metric):
    """Area below the probability while the most relevant goes first. Petsiuk et al. 2018 (RISE), § 4.1."""

    steps: int = setting(50, "Steps from the whole input to nothing; each costs a forward.", low=1, high=500)
    blank: str = setting("auto", BLANK_HELP)

    name: ClassVar[str] = "deletion"
    better: ClassVar[Better] = "lower"
    ordering: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="Deletion",
        question="Does the probability fall fast when what the map marks is removed first?",
        formula="area below f(x with the top share removed), shares from 0 to 1",
        reference="Petsiuk, Das, Saenko 2018, arXiv:1806.07421",
        misleads="Removed pixels leave pictures that the network never saw: scattered ones break it fastest, whatever "
        "they show, so noisy maps look good. Compare with the random maps, and read it beside insertion.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(self.steps + 1)

    def score(self, trial: Trial, subject: Subject) -> Measured:
        return self._along(trial, subject, Course.removing, self.blank)

    def _along(self, trial: Trial, subject: Subject, course: Laid, blank: str) -> Measured:
        if self.steps < 1:
            raise InputError(f"steps = {self.steps}: a curve needs at least one step")
        shares = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        counts = (shares[:, None] * sizes(trial)).round().long()
        curves = outcomes_along(trial, course(trial, subject.maps, counts), blank)
        return measured_along(area(curves, shares), curves, shares, "share of the input")


@dataclass(frozen=True)
class Insertion(Deletion):
    """Area below the probability while the most relevant comes first. Petsiuk et al. 2018 (RISE), § 4.1."""

    blank: str = setting("blur", BLANK_HELP + " Of texts, blur is auto.")

    name: ClassVar[str] = "insertion"
    better: ClassVar[Better] = "higher"
    card: ClassVar[MetricCard] = MetricCard(
        title="Insertion",
        question="Does the probability rise fast when what the map marks is put into a blurred picture first?",
        formula="area below f(blurred x with the top share sharp), shares from 0 to 1; σ of the blur is a tenth of the "
        "shorter side (22 of 224 pixels; RISE: 5)",
        reference="Petsiuk, Das, Saenko 2018, arXiv:1806.07421",
        misleads="A blurred picture keeps colours and rough shapes: where these already decide, every map looks good. "
        "Compact maps gain over scattered ones that mark the same.",
    )

    def score(self, trial: Trial, subject: Subject) -> Measured:
        blank = "auto" if trial.is_text and self.blank == "blur" else self.blank
        return self._along(trial, subject, Course.building, blank)


@dataclass(frozen=True)
class PixelFlipping(Metric):
    """Area below the probability while pixels are flipped, n by n, most relevant first. Bach et al. 2015, § 4."""

    pixels_in_step: int = setting(224, "Pixels flipped at once; of texts always one token.", low=1, high=50176)
    blank: str = setting("auto", BLANK_HELP)

    name: ClassVar[str] = "pixel_flipping"
    better: ClassVar[Better] = "lower"
    ordering: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="Pixel flipping",
        question="How fast does the probability fall when pixels are flipped in the order of the map?",
        formula="area below f after every flip, the first flip first; the untouched input is left out",
        reference="Bach, Binder, Montavon, Klauschen, Müller, Samek 2015, PLOS ONE 10(7)",
        misleads="As deletion: flipped pixels are noise that the network may fall for. The colour that they take "
        "decides a good deal: black on dark pictures changes nothing.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(1 + (-(-224 * 224 // self.pixels_in_step) if model.kind == "image" else 32))

    def score(self, trial: Trial, subject: Subject) -> Measured:
        if self.pixels_in_step < 1:
            raise InputError(f"pixels_in_step = {self.pixels_in_step}: flip at least one at a time")
        at_once, total = 1 if trial.is_text else self.pixels_in_step, sizes(trial)
        own = -(-total // at_once)  # steps of each sample
        flips = torch.arange(1, max(1, int(own.max())) + 1)
        counts = torch.minimum(flips[:, None] * at_once, total)
        curves = outcomes_along(trial, Course.removing(trial, subject.maps, counts), self.blank)
        values = torch.cat(
            [area(c[None, : max(1, int(n))], flips[: max(1, int(n))]) for c, n in zip(curves, own, strict=True)]
        )
        whole = outcomes(trial, 1, everything(trial), self.blank).T  # not in the area, but what a single flip changes
        return measured_along(values, curves, flips.double(), "flips", torch.cat([whole, curves], 1))


@dataclass(frozen=True)
class Comprehensiveness(Metric):
    """Mean over shares of f(x) − f(x without the top share). DeYoung et al. 2020 (ERASER), § 4.2."""

    shares: tuple[float, ...] = setting((0.01, 0.05, 0.1, 0.2, 0.5), "Shares of the pixels or tokens, rounded up.")
    blank: str = setting("auto", BLANK_HELP)

    name: ClassVar[str] = "comprehensiveness"
    better: ClassVar[Better] = "higher"
    ordering: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="Comprehensiveness",
        question="How much does the probability fall without what the map marks?",
        formula="mean over shares of f(x) − f(x without the top share)",
        reference="DeYoung et al. 2020, arXiv:1911.03429",
        misleads="What is left is no natural text or picture, and a fall may come from that alone. Evidence that "
        "stands twice keeps the probability up although the map is right.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(len(self.shares) + 1)

    def score(self, trial: Trial, subject: Subject) -> Measured:
        curves = self._outcomes(trial, subject, Course.removing)
        return self._drops(curves[:, 0], curves[:, 1:], curves)

    def _outcomes(self, trial: Trial, subject: Subject, course: Laid) -> Tensor:
        """(batch, 1 + shares): where the course begins, then with the top shares gone, or alone."""
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise InputError(f"shares = {self.shares}: give numbers above 0 and up to 1")
        counts = (torch.tensor((0.0, *self.shares), dtype=torch.float64)[:, None] * sizes(trial)).ceil().long()
        return outcomes_along(trial, course(trial, subject.maps, counts), self.blank)

    def _drops(self, whole: Tensor, parts: Tensor, judged: Tensor) -> Measured:
        drops = whole[:, None] - parts
        return measured_along(drops.mean(1), drops, torch.tensor(self.shares), "share of the input", judged)


@dataclass(frozen=True)
class Sufficiency(Comprehensiveness):
    """Mean over shares of f(x) − f(the top share alone). DeYoung et al. 2020 (ERASER), § 4.2."""

    name: ClassVar[str] = "sufficiency"
    better: ClassVar[Better] = "lower"
    card: ClassVar[MetricCard] = MetricCard(
        title="Sufficiency",
        question="How much is lost when only what the map marks is kept?",
        formula="mean over shares of f(x) − f(the top share alone)",
        reference="DeYoung et al. 2020, arXiv:1911.03429",
        misleads="A blank input may already be given the class: then nothing is ever lost. A few pixels alone are far "
        "from any picture; the smallest shares of pictures tell little.",
    )

    def passes(self, model: Model) -> Passes:
        return Passes(len(self.shares) + 2)

    def score(self, trial: Trial, subject: Subject) -> Measured:
        parts = self._outcomes(trial, subject, Course.building)
        whole = outcomes(trial, 1, everything(trial), self.blank)[0]
        return self._drops(whole, parts[:, 1:], torch.cat([whole[:, None], parts], 1))
