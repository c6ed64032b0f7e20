"""The class activation maps: a layer's channels, weighted by their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attrib import readouts
from attrib.methods.base import Card, Finding, Method, Question, setting
from attrib.sites import survey
from attrib.taps import Taps

LAYER_HELP = "The layer to look at, by its path in the model; empty: the last stage, found by a probe."


def layer_map(question: Question, layer: str | None, read: Callable[[Tensor, Tensor], Tensor]) -> Finding:
    """One forward, a backward down to the layer, and `read` of its activation and gradient."""
    seen = survey(question.model.module, question.twin, question.x)
    layer = layer or seen.last_stage()
    with Taps(question.twin, [layer], seen=seen) as taps, torch.enable_grad():
        score = question.scores(question.x)
        gradient = taps.gradients(score)[layer]
    activation = taps.outputs[layer].detach()
    grid = seen.grid(activation.shape, layer)
    values = read(grid.maps(activation), grid.maps(gradient))
    return Finding(values, score.detach(), kind="layer", signed=False, notes=(f"read at layer {layer}", *taps.notes))


@dataclass(frozen=True)
class GradCAM(Method):
    """relu(Σ_c w_c A_c), w_c = mean of ∂f/∂A_c. Selvaraju et al. 2017."""

    layer: str | None = setting(None, LAYER_HELP)

    name: ClassVar[str] = "grad_cam"
    card: ClassVar[Card] = Card(
        title="Grad-CAM",
        idea="Which of the last layer's detectors speak for the class, and where do they fire?",
        formula="relu(Σ_c w_c A_c), w_c = mean over positions of ∂f/∂A_c",
        reference="Selvaraju et al. 2017, arXiv:1610.02391",
        assumptions="The layer still knows places, and one weight per channel is enough: true before global pooling.",
        misleads="It is coarse, about 7 × 7, and looks sharp only because it is resized. Before the last stage "
        "one weight per channel is wrong and maps fail. Evidence against the class is cut off.",
        cost="1 F + the backward above the layer",
    )

    def explain(self, question: Question) -> Finding:
        return layer_map(question, self.layer, readouts.grad_cam)


@dataclass(frozen=True)
class GradCAMPlusPlus(Method):
    """relu(Σ_c w_c A_c) with w_c from positive gradients, weighted by position. Chattopadhyay et al. 2018."""

    layer: str | None = setting(None, LAYER_HELP)

    name: ClassVar[str] = "grad_cam_plus_plus"
    card: ClassVar[Card] = Card(
        title="Grad-CAM++",
        idea="Grad-CAM that does not lose the second of two objects of the same class.",
        formula="relu(Σ_c w_c A_c), w_c = Σ_ij g²/(2g² + (ΣA_c)g³) · relu(g)",
        reference="Chattopadhyay et al. 2018, arXiv:1710.11063",
        assumptions="The score is the exponential of the logit, so that higher derivatives are powers of g.",
        misleads="Only positive gradients count, so it marks whatever looks like an object and tells classes "
        "apart less well than Grad-CAM.",
        cost="1 F + the backward above the layer",
    )

    def explain(self, question: Question) -> Finding:
        return layer_map(question, self.layer, readouts.grad_cam_plus_plus)


@dataclass(frozen=True)
class LayerCAM(Method):
    """relu(Σ_c relu(∂f/∂A) ⊙ A). Jiang et al. 2021."""

    layer: str | None = setting(None, LAYER_HELP)

    name: ClassVar[str] = "layer_cam"
    card: ClassVar[Card] = Card(
        title="LayerCAM",
        idea="Weigh every position of every channel by its own gradient, so that shallow layers work too.",
        formula="relu(Σ_c relu(∂f/∂A_c) ⊙ A_c)",
        reference="Jiang et al. 2021, doi:10.1109/TIP.2021.3089943",
        assumptions="A positive gradient at a position means that what fires there speaks for the class.",
        misleads="In shallow layers it marks edges of everything; negative evidence is cut off.",
        cost="1 F + the backward above the layer",
    )

    def explain(self, question: Question) -> Finding:
        return layer_map(question, self.layer, readouts.layer_cam)
