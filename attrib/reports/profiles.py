"""Neuron activation profiles: what a layer does on one class that it does not do on the others.

The profile of a class is, neuron by neuron, the mean activation over the class minus the mean over all items — Krug,
Knaebel & Stober 2018, "Neuron activation profiles for interpreting convolutional speech recognition models". Inputs
are not aligned with each other here, so a neuron's activation is first averaged over its positions (of a text: tokens).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attrib.errors import InputError, UnknownName
from attrib.failures import named_failures
from attrib.models import Encoded, TextModel, VisionModel
from attrib.reports.statistics import Running
from attrib.rules.shadow import shadow
from attrib.sites import first_tensor, survey

AUTO = "auto"
MOST_GROUPS = 200
_AT_ONCE = 8

Model = VisionModel | TextModel


@dataclass
class Profiles:
    """Of one layer of one model. overall, groups: running mean and spread, (neurons,), over all items and per class."""

    model: str
    layer: str
    overall: Running = field(default_factory=Running)
    groups: dict[str, Running] = field(default_factory=dict)

    def add(self, label: str, activation: np.ndarray) -> None:
        """One item of the class `label`; classes beyond MOST_GROUPS count for the overall mean alone."""
        self.overall.add(activation)
        if label in self.groups or len(self.groups) < MOST_GROUPS:
            self.groups.setdefault(label, Running()).add(activation)

    def profile(self, label: str) -> np.ndarray:
        """(neurons,): mean over the class minus mean over all."""
        return np.asarray(self.groups[label].mean - self.overall.mean)

    def strongest(self, label: str, most: int = 6) -> list[tuple[int, float, float]]:
        """(neuron, profile, profile in standard deviations over all items), most unusual first."""
        profile = self.profile(label)
        unusual = profile / np.where(self.overall.spread > 0, self.overall.spread, np.inf)
        order = np.argsort(-np.abs(unusual), kind="stable")[:most]
        return [(int(i), float(profile[i]), float(unusual[i])) for i in order]

    def largest(self, most: int) -> list[str]:
        """The classes with most items."""
        return sorted(self.groups, key=lambda label: (-self.groups[label].count, label))[:most]

    def distances(self, labels: list[str]) -> np.ndarray:
        """(classes, classes): 1 − Pearson correlation of two classes' profiles, from 0 (alike) to 2 (opposite)."""
        profiles = np.stack([self.profile(label) for label in labels])
        centred = profiles - profiles.mean(1, keepdims=True)
        length = np.linalg.norm(centred, axis=1)
        unit = centred / np.where(length > 0, length, 1.0)[:, None]
        return np.asarray(np.clip(1.0 - unit @ unit.T, 0.0, 2.0))


def activations(model: Model, encoded: Any, layer: str) -> np.ndarray:
    """(batch, neurons) float64: the layer's output on encoded inputs, averaged over positions.

    Raises UnknownName for a layer that is not there, InputError for one that puts out nothing per neuron.
    """
    twin = shadow(model.module)
    seen: list[Tensor] = []
    try:
        module = twin.get_submodule(layer)
    except AttributeError:
        raise UnknownName("layer", layer, {path for path, _ in twin.named_modules() if path}) from None

    def note(module: nn.Module, args: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None:
            seen[:] = [tensor.detach()]

    with named_failures(model.name, twin, encoded.x), torch.no_grad():
        handle = module.register_forward_hook(note)
        try:
            model.forward(twin, encoded.x, encoded.extra)
        finally:
            handle.remove()
    if not seen:
        raise InputError(f"layer {layer!r} did not run or puts out no tensor; choose another layer")
    return _averaged(model, twin, encoded, seen[0], layer).cpu().double().numpy()


def layer_of(model: Model, encoded: Any, layer: str) -> str:
    """The layer itself; for "auto" the last stage of a picture's model, the last block of a text's."""
    if layer != AUTO:
        return layer
    twin = shadow(model.module)
    if isinstance(model, VisionModel):
        return survey(model.module, twin, encoded.x).last_stage()
    blocks = [(path, m) for path, m in twin.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    if not blocks:
        raise InputError(f"{model.name} has no list of blocks to take the last of; give profile_layer a module's path")
    path, found = max(blocks, key=lambda b: len(b[1]))
    return f"{path}.{len(found) - 1}"


def _averaged(model: Model, twin: nn.Module, encoded: Any, output: Tensor, layer: str) -> Tensor:
    if output.dim() == 2:
        return output
    if isinstance(model, TextModel):
        if output.dim() != 3:
            raise InputError(f"layer {layer!r} puts out {tuple(output.shape)}; give one with (batch, tokens, width)")
        return output.mean(1)
    return survey(model.module, twin, encoded.x).grid(output.shape, layer).maps(output).mean((2, 3))


class Profiler:
    """Takes a report's items one by one, a few of them in memory, and keeps running means."""

    def __init__(self, model: Model, layer: str) -> None:
        self._model, self._wanted = model, layer
        self._waiting: list[tuple[str, np.ndarray]] = []
        self._found: Profiles | None = None

    def add(self, label: str, picture: np.ndarray | None, text: str | None) -> None:
        """An item explained as `label`: what the model saw, (height, width, 3) uint8, or the text."""
        if isinstance(self._model, TextModel):
            if text is not None:
                self._run([label], self._model.encode([text]))
            return
        if picture is None or self._model.preprocessing is None:
            return
        if self._waiting and self._waiting[0][1].shape != picture.shape:
            self._flush()
        self._waiting.append((label, picture))
        if len(self._waiting) == _AT_ONCE:
            self._flush()

    def finish(self) -> Profiles | None:
        """The profiles; None where no item was added."""
        self._flush()
        return self._found

    def _flush(self) -> None:
        if not self._waiting or not isinstance(self._model, VisionModel) or self._model.preprocessing is None:
            return
        labels, pictures = [label for label, _ in self._waiting], np.stack([p for _, p in self._waiting])
        self._waiting = []
        x = self._model.preprocessing.normalised(pictures).to(self._model.device, self._model.dtype)
        self._run(labels, Encoded(x, pictures, ()))

    def _run(self, labels: list[str], encoded: Any) -> None:
        if self._found is None:
            self._found = Profiles(self._model.name, layer_of(self._model, encoded, self._wanted))
        for label, activation in zip(labels, activations(self._model, encoded, self._found.layer), strict=True):
            self._found.add(label, activation)
