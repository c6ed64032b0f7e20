"""SmoothGrad and VarGrad: mean and variance of another method's map under noise on the input."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attrib.errors import InputError, NotApplicable, UnknownName
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.gradient import InputXGradient, Saliency
from attrib.methods.passes import about, laid_out, normal, pairs, per_row, value_range


@dataclass(frozen=True)
class Gradient(Method):
    """∂f/∂x with its sign: what SmoothGrad and VarGrad average."""

    name: ClassVar[str] = "gradient"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    card: ClassVar[Card] = dataclasses.replace(Saliency.card, title="Gradient", formula="∂f/∂x, signed")

    def explain(self, question: Question) -> Finding:
        score, gradient = question.gradient(question.x)
        return Finding(gradient, score, reduction="max_abs")


_TEXT_BASES = ("gradient", "saliency", "input_x_gradient")
_BASES = {"image": (*_TEXT_BASES, "guided_backprop", "deconvnet"), "text": _TEXT_BASES}
# bases that ask nothing but a gradient, so that the twin's weights may be laid out anew
_PLAIN = (Gradient, Saliency, InputXGradient)


@dataclass(frozen=True)
class SmoothGrad(Method):
    """Σ_i base(x + σ n_i) / n with n_i ~ N(0, 1), σ = noise_level · (max x − min x). Smilkov et al. 2017."""

    base: Method | str = setting(
        "gradient", "The method whose maps are averaged, by name or as an object.", choices=_BASES
    )
    n_samples: int = setting(25, "Noisy copies; the map hardly changes past 50.", low=1, high=500)
    noise_level: float = setting(0.15, "σ as a share of the input's largest minus smallest value.", low=0.0, high=1.0)
    seed: int = setting(0, "The same seed gives the same noise on every device.", low=0, advanced=True)

    name: ClassVar[str] = "smoothgrad"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    single_pass: ClassVar[bool] = False
    card: ClassVar[Card] = Card(
        title="SmoothGrad",
        idea="What matters to the score around this input, not only exactly at it?",
        formula="mean of base(x + σn), n ~ N(0, 1); base is the gradient",
        reference="Smilkov et al. 2017, arXiv:1706.03825",
        assumptions="Nearby noisy inputs are scored for the same reasons.",
        misleads="It looks cleaner, and is not thereby truer: the noise level decides how much is smoothed "
        "away, and with much noise it explains inputs that the network was never trained on.",
        cost="n_samples × (1 F + 1 B) + 1 F",
    )

    def explain(self, question: Question) -> Finding:
        moments, first, score = noisy_moments(self, question)
        # a token's sum over its embedding says something only of contributions, not of a gradient
        signed = first.signed and not (question.is_text and first.reduction == "max_abs")
        return Finding(moments.mean, score, reduction=first.reduction, signed=signed, notes=moments.notes)


@dataclass(frozen=True)
class VarGrad(Method):
    """Σ_i (base(x + σ n_i) − mean)² / n: how unsure the map is. Adebayo et al. 2018."""

    base: Method | str = setting(
        "gradient", "The method whose maps are compared, by name or as an object.", choices=_BASES
    )
    n_samples: int = setting(25, "Noisy copies.", low=1, high=500)
    noise_level: float = setting(0.15, "σ as a share of the input's largest minus smallest value.", low=0.0, high=1.0)
    seed: int = setting(0, "The same seed gives the same noise on every device.", low=0, advanced=True)

    name: ClassVar[str] = "vargrad"
    applies_to: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    single_pass: ClassVar[bool] = False
    card: ClassVar[Card] = Card(
        title="VarGrad",
        idea="Where does the gradient change most when the input is shaken a little?",
        formula="variance (divisor n) of base(x + σn), n ~ N(0, 1); base is the gradient",
        reference="Adebayo et al. 2018, arXiv:1810.03307",
        assumptions="Where influence depends on the details, there the network looks.",
        misleads="It has no direction: evidence for and against look alike. A linear model has variance zero "
        "everywhere although everything counts.",
        cost="n_samples × (1 F + 1 B) + 1 F",
    )

    def explain(self, question: Question) -> Finding:
        moments, first, score = noisy_moments(self, question)
        notes = moments.notes
        if self.n_samples == 1:
            notes = (*notes, "one sample has no variance; raise n_samples")
        return Finding(moments.variance, score, reduction=first.reduction, signed=False, notes=notes)


@dataclass
class Moments:
    """Running mean and sum of squared deviations of each sample's maps (Welford), in constant memory."""

    count: Tensor  # (batch,)
    mean: Tensor
    squares: Tensor
    notes: tuple[str, ...] = ()

    def add(self, rows: Tensor, maps: Tensor) -> None:
        for row, new in zip(rows.tolist(), maps, strict=True):
            self.count[row] += 1
            deviation = new - self.mean[row]
            self.mean[row] += deviation / self.count[row]
            self.squares[row] += deviation * (new - self.mean[row])

    @property
    def variance(self) -> Tensor:
        return self.squares / per_row(self.count, self.squares)


def noisy_moments(method: SmoothGrad | VarGrad, question: Question) -> tuple[Moments, Finding, Tensor]:
    """Moments of the base's maps, the base's first finding, and the score of the clean input."""
    base = _base(method, question.model.kind)
    question = laid_out(question, method.n_samples) if isinstance(base, _PLAIN) else question
    score = question.settle()
    x = question.x
    moments = Moments(torch.zeros(len(x), device=x.device, dtype=x.dtype), torch.zeros_like(x), torch.zeros_like(x))
    sigma, first, notes = method.noise_level * value_range(x, question.real), None, dict[str, None]()
    for draws, rows in pairs(question, method.n_samples):
        noise = normal(method.seed, draws.unique(), x)[draws - draws[0]]
        finding = base.explain(_quiet(about(question, x[rows] + sigma[rows] * noise, rows)))
        if finding.kind != "input":
            raise NotApplicable(f"{base.name} gives {finding.kind}-level maps; give a base with input-level maps")
        moments.add(rows, finding.values)
        notes |= dict.fromkeys(finding.notes)
        first = first or finding
    moments.notes = tuple(notes)
    assert first is not None  # n_samples ≥ 1
    return moments, first, score


def _quiet(question: Question) -> Question:
    return dataclasses.replace(question, on_progress=lambda fraction: None)


def _base(method: SmoothGrad | VarGrad, kind: str) -> Method:
    if method.n_samples < 1 or method.noise_level < 0:
        given = f"n_samples = {method.n_samples}, noise_level = {method.noise_level}"
        raise InputError(f"{given}: at least one sample is needed, and noise of at least 0")
    base = method.base if isinstance(method.base, Method) else _base_named(method.base)
    if kind not in base.applies_to:
        raise NotApplicable(
            f"{base.name} does not apply to {kind} models; as a base these do: {', '.join(_BASES[kind])}"
        )
    return base


def _base_named(name: str) -> Method:
    from attrib.methods import METHODS  # deferred: the table holds this file's classes

    if name == "gradient":
        return Gradient()
    if name not in METHODS:
        raise UnknownName("base method", name, ["gradient", *METHODS])
    return METHODS[name]()
