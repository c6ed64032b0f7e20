"""Whether a method's maps depend on the class at all: the best and the worst class explained, and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrib.errors import NotApplicable
from attrib.explain import check_applies, explain
from attrib.methods import method_named
from attrib.methods.base import Method
from attrib.models.vision import VisionModel
from attrib.outputs import logits_of
from attrib.rules.shadow import shadow

_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class ClassSensitivity:
    """Spearman's correlation, over all pixels, of the maps for the most and the least probable class.

    Near 1: the method shows the same whatever class is asked for. Near 0: maps depend on the class.
    correlation: (batch,), NaN where a map is constant. mean, std: over the finite ones; NaN if there is none.
    best, worst: (batch,) the two classes.
    """

    method: str
    correlation: Tensor
    best: Tensor
    worst: Tensor

    @property
    def mean(self) -> float:
        finite = self.correlation[self.correlation.isfinite()]
        return float(finite.mean()) if len(finite) else float("nan")

    @property
    def std(self) -> float:
        finite = self.correlation[self.correlation.isfinite()]
        return float(finite.std(correction=0)) if len(finite) else float("nan")


def class_sensitivity(model: VisionModel, inputs: Any, method: Method | str, **options: Any) -> ClassSensitivity:
    """How alike are the maps of `method` for each input's most and least probable class? Rebuffi et al. 2020, § 4.

    options: those of `attrib.explain`. Low |correlation| = class sensitive.
    """
    method = method_named(method)
    check_applies(model, method)
    if not isinstance(model, VisionModel):
        raise NotApplicable(
            "class_sensitivity compares maps of pictures; of texts, evaluate(…, 'class_sensitivity') does"
        )
    x = model.encode(inputs).x
    twin = shadow(model.module)
    with torch.no_grad():
        logits = torch.cat([logits_of(twin(part.clone())) for part in x.split(_AT_ONCE)])
    logits = logits if logits.dim() == 2 else logits.flatten(2).sum(2)
    best, worst = logits.argmax(1), logits.argmin(1)
    size = (x.shape[2], x.shape[3])
    maps = [explain(model, inputs, method, classes.tolist(), **options).heatmap(size) for classes in (best, worst)]
    pairs = zip(maps[0], maps[1], strict=True)
    return ClassSensitivity(method.name, torch.tensor([spearman(a, b) for a, b in pairs]), best.cpu(), worst.cpu())


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of all entries, ties sharing their mean rank; NaN where one of them is constant."""
    return float(unit_ranks(a) @ unit_ranks(b))


def unit_ranks(values: np.ndarray) -> np.ndarray:
    """(n,): the ranks of all entries, centred and of length 1, so that a product is a rank correlation; or NaN."""
    _, place, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[place] - (len(place) + 1) / 2
    length = np.linalg.norm(ranks)
    found: np.ndarray = ranks / length if length else np.full(len(place), np.nan)
    return found
