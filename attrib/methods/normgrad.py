"""NormGrad: how much an identity layer, put somewhere into the network, would learn at each position."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attrib import readouts
from attrib.errors import InputError, UnknownName
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.methods.geometries import VIRTUAL, geometry_of, virtual_geometry
from attrib.methods.meta import one_step
from attrib.methods.passes import about
from attrib.sites import Survey, survey
from attrib.taps import Taps

COMBINE = ("product", "sum", "geometric")
WEIGHTS = ("uniform", "linear")


@dataclass(frozen=True)
class NormGrad(Method):
    """aggregate of ∂f/∂w at each position, w the weights of a virtual identity layer. Rebuffi et al. 2020."""

    layers: str | tuple[str, ...] | None = setting(
        None, "Layers by path; empty: the last feature layer of each resolution; 'last': the last one only."
    )
    virtual: str = setting(
        "conv1x1",
        "The identity layer put in; none: the convolution at that place itself (any odd NxN works).",
        choices=VIRTUAL,
    )
    aggregate: str = setting(
        "norm",
        "How a position's weight gradients become one number; filter_norm: norm of the positive ones "
        "(with scaling: 'selective NormGrad').",
        choices=tuple(readouts.AGGREGATES),
    )
    combine: str = setting("product", "How maps of several layers, each scaled to 0..1, become one.", choices=COMBINE)
    meta_lr: float | None = setting(
        None,
        "Meta-saliency: explain after one step of gradient descent of this size on the class.",
        low=0.0,
        advanced=True,
    )
    weights: str | tuple[float, ...] = setting(
        "uniform",
        "The layers' say in sum and geometric: uniform; linear: deeper counts more; or a number for each.",
        choices=WEIGHTS,
    )

    name: ClassVar[str] = "normgrad"
    card: ClassVar[Card] = Card(
        title="NormGrad",
        idea="If the network could learn from this picture with a layer that so far does nothing, at which "
        "positions would it learn most?",
        formula="‖∂f/∂w at position u‖ = ‖x_u‖·‖g_u‖ for a virtual 1×1 convolution; maps of layers multiplied",
        reference="Rebuffi, Fong, Ji, Vedaldi 2020, arXiv:2004.02866",
        assumptions="Positions that matter have both a strong activation and a strong gradient.",
        misleads="Norms have no sign: evidence for and against look alike, and maps for different classes are "
        "much alike. Large activations (bright, high contrast) weigh by themselves.",
        cost="1 F + the backward above the first layer; with meta_lr one more F + B with weight gradients",
    )

    def explain(self, question: Question) -> Finding:
        self._check()
        seen = survey(question.model.module, question.twin, question.x)
        layers = self._layers(question, seen)
        if self.meta_lr is None:
            return self._read(question, seen, layers)
        return self._read_after_a_step(question, seen, layers, self.meta_lr)

    def _check(self) -> None:
        for kind, value, known in (("combination", self.combine, COMBINE), ("weighting", self.weights, WEIGHTS)):
            if isinstance(value, str) and value not in known:
                raise UnknownName(kind, value, known)
        if self.aggregate not in readouts.AGGREGATES:
            raise UnknownName("aggregation", self.aggregate, readouts.AGGREGATES)
        virtual_geometry(self.virtual, 1)

    def _layers(self, question: Question, seen: Survey) -> tuple[str, ...]:
        if self.layers is None or self.layers == "last":
            found = seen.stages() if self.layers is None else (seen.last_stage(),)
            return (
                tuple(dict.fromkeys(_convolution_in(seen, layer) for layer in found))
                if self.virtual == "none"
                else found
            )
        layers = (self.layers,) if isinstance(self.layers, str) else tuple(self.layers)
        if not layers:
            raise InputError("layers is empty; name one, or leave it out")
        return layers

    def _read(self, question: Question, seen: Survey, layers: tuple[str, ...]) -> Finding:
        with Taps(question.twin, layers, self.virtual == "none", seen) as taps, torch.enable_grad():
            score = question.scores(question.x)
            gradients = taps.gradients(score)
        maps = [self._map(question.twin, seen, layer, taps, gradients[layer]) for layer in layers]
        signed, notes = self.aggregate in ("sum", "max"), (f"read at {', '.join(layers)}", *taps.notes)
        if len(maps) == 1:
            return Finding(maps[0], score.detach(), kind="layer", signed=signed, notes=notes)
        values, constant = readouts.combined(
            maps, (question.x.shape[2], question.x.shape[3]), self.combine, self._layer_weights(len(maps))
        )
        for layer, row in zip(layers, constant, strict=True):
            if row.any():
                notes = (*notes, f"the map of layer {layer} is constant and was left out")
        return Finding(values, score.detach(), kind="layer", signed=False, notes=notes)

    def _layer_weights(self, n: int) -> Tensor:
        if self.weights == "uniform":
            weights = torch.ones(n, dtype=torch.float64)
        elif self.weights == "linear":
            weights = torch.arange(1, n + 1, dtype=torch.float64)
        else:
            weights = torch.tensor([float(weight) for weight in self.weights], dtype=torch.float64)
            if len(weights) != n or not (weights >= 0).all() or not 0 < float(weights.sum()) < float("inf"):
                raise InputError(f"weights {self.weights} for {n} layers: give one number of at least 0 for each")
        return weights / weights.sum()

    def _map(self, twin: nn.Module, seen: Survey, layer: str, taps: Taps, gradient: Tensor) -> Tensor:
        output = taps.outputs[layer].detach()
        grid = seen.grid(output.shape, layer)
        gradient = grid.maps(gradient)
        if self.virtual != "none":
            return readouts.norm_grad(
                grid.maps(output), gradient, virtual_geometry(self.virtual, gradient.shape[1]), self.aggregate
            )
        geometry = geometry_of(twin.get_submodule(layer), layer)
        entering = taps.inputs[layer]
        return readouts.norm_grad(seen.grid(entering.shape, layer).maps(entering), gradient, geometry, self.aggregate)

    def _read_after_a_step(self, question: Question, seen: Survey, layers: tuple[str, ...], rate: float) -> Finding:
        """Every sample has its own step, so samples are read one by one."""
        score = question.settle()
        findings = []
        for row in range(len(question.x)):
            single = about(question, question.x[row : row + 1], torch.tensor([row], device=question.x.device))
            with one_step(single, rate):
                findings.append(self._read(single, seen, layers))
            question.on_progress((row + 1) / len(question.x))
        notes = tuple(dict.fromkeys(note for finding in findings for note in finding.notes))
        return dataclasses.replace(
            findings[0], values=torch.cat([f.values for f in findings]), score=score, notes=notes
        )


def _convolution_in(seen: Survey, layer: str) -> str:
    """The last convolution that ran before `layer` returned."""
    end = max(i for i, visit in enumerate(seen.visits) if visit.path == layer)
    found = [v for v in seen.visits[: end + 1] if v.kind in ("Conv2d", "Linear") and len(v.shape) in (3, 4)]
    if not found:
        raise InputError("virtual='none' reads a convolution's own weights, and none ran; choose another virtual layer")
    return found[-1].path
