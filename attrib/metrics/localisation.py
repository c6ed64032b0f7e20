"""Whether a map lies on the object: for pictures with a mask or a box, and texts whose words are known to matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from attrib.errors import InputError
from attrib.methods.base import setting
from attrib.metrics.base import Better, Measured, Metric, MetricCard, Subject
from attrib.metrics.curves import ranks
from attrib.metrics.trial import Trial

EMPTY = "the mask is empty: there is nothing to find"
_BOX = "a box is (left, top, right, bottom) in pixels of the model's input"


def masks_of(masks: Any, sites: tuple[int, ...]) -> Tensor:
    """(batch, *sites) bool from such an array, one mask for all, or of pictures a box for each input.

    InputError where the size is another: a mask belongs to what the model sees, after resizing and cropping.
    """
    batch = sites[0]
    boxed = isinstance(masks, (list, tuple)) and all(isinstance(m, (list, tuple)) and len(m) == 4 for m in masks)
    if boxed and len(sites) == 3 and all(isinstance(side, (int, float)) for box in masks for side in box):
        if len(masks) != batch:
            raise InputError(f"{len(masks)} boxes for {batch} inputs; give one for each")
        return torch.stack([_filled(box, sites[1], sites[2]) for box in masks])
    try:
        stacked = masks if isinstance(masks, Tensor) else torch.as_tensor(np.stack([np.asarray(m) for m in masks]))
    except (ValueError, TypeError) as error:
        raise InputError(f"masks must be an array {sites}, or a list with one for each input; {_BOX}") from error
    if tuple(stacked.shape) == sites[1:]:
        stacked = stacked[None].expand(sites)
    if boxed and len(sites) == 2 and tuple(stacked.shape) != sites:
        raise InputError(
            f"a box is for pictures; of texts of {sites[1]} tokens give masks {sites}, True where it counts"
        )
    if tuple(stacked.shape) != sites:
        raise InputError(
            f"masks of shape {tuple(stacked.shape)} do not fit inputs of {sites}; masks belong to what the model sees"
        )
    return (stacked.cpu() > 0).clone()


def _filled(box: Any, height: int, width: int) -> Tensor:
    left, top, right, bottom = (round(side) for side in box)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(f"the box {tuple(box)} does not lie in a picture of {height} × {width}; {_BOX}")
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


@dataclass(frozen=True)
class _OnMask(Metric):
    """What metrics with a mask share: an empty one gives no number."""

    read: Literal["signed", "absolute"] = setting(
        "signed", "signed: what speaks against the class is the least relevant; absolute: only sizes count.",
        choices=("signed", "absolute"),
    )  # fmt: skip

    needs_mask: ClassVar[bool] = True

    def score(self, trial: Trial, subject: Subject) -> Measured:
        masks = trial.masks
        if masks is None:
            raise InputError(f"{self.name} needs masks: give a mask or a box for each input")
        maps = subject.maps.abs() if self.read == "absolute" else subject.maps
        found, words = [], []
        for row in range(len(trial)):
            mask = masks[row] & trial.allowed[row]
            value, said = (float("nan"), EMPTY) if not mask.any() else self._of(trial, maps[row], mask, row)
            found.append(value)
            words.append(said)
        return Measured(torch.tensor(found, dtype=torch.float64), tuple(words))

    def _of(self, trial: Trial, values: Tensor, mask: Tensor, row: int) -> tuple[float, str]:
        raise NotImplementedError


def _order(trial: Trial, values: Tensor, row: int) -> Tensor:
    return ranks(values[None], trial.allowed[row : row + 1], trial.drawn(3))[0]


@dataclass(frozen=True)
class PointingGame(_OnMask):
    """Whether the map's highest point lies on the mask, or nearer than `tolerance`. Zhang et al. 2016."""

    tolerance: float = setting(15.0, "Pixels that the point may be off, strictly less; of texts none.", low=0.0)

    name: ClassVar[str] = "pointing_game"
    better: ClassVar[Better] = "higher"
    ordering: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="Pointing game",
        question="Does the highest point lie on the object?",
        formula="1 if a pixel of the mask is nearer to argmax map than the tolerance, else 0",
        reference="Zhang, Lin, Brandt, Shen, Sclaroff 2016, arXiv:1608.00507",
        misleads="One pixel decides. Objects in the middle are hit by the middle: compare with the centre prior. The "
        "network may well look at something else than the object.",
    )

    def _of(self, trial: Trial, values: Tensor, mask: Tensor, row: int) -> tuple[float, str]:
        point = (_order(trial, values, row) == 0).nonzero()[0]
        reach = 0.0 if trial.is_text else self.tolerance
        nearest = float((mask.nonzero() - point).double().norm(dim=1).min())
        return float(nearest < reach or nearest == 0), ""


@dataclass(frozen=True)
class RelevanceMass(_OnMask):
    """The share of the positive relevance that lies on the mask. Arras et al. 2022, eq. 1."""

    name: ClassVar[str] = "relevance_mass"
    better: ClassVar[Better] = "higher"
    card: ClassVar[MetricCard] = MetricCard(
        title="Relevance mass",
        question="How much of the relevance lies on the object?",
        formula="Σ_{mask} A⁺ / Σ A⁺",
        reference="Arras, Osman, Samek 2022, arXiv:2003.07258",
        misleads="A large object gets much of any map: compare with random. Negative relevance does not count.",
    )

    def _of(self, trial: Trial, values: Tensor, mask: Tensor, row: int) -> tuple[float, str]:
        positive = values.clamp_min(0) * trial.allowed[row]
        total = float(positive.sum())
        if total <= 0:
            return float("nan"), "the map has no positive value"
        return float(positive[mask].sum()) / total, ""


@dataclass(frozen=True)
class RankAccuracy(_OnMask):
    """How many of the |S| highest sites lie in the mask S. Arras et al. 2022, eq. 2."""

    name: ClassVar[str] = "rank_accuracy"
    better: ClassVar[Better] = "higher"
    ordering: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="Rank accuracy",
        question="Do the highest values lie on the object?",
        formula="|top-|S| of the map ∩ S| / |S|",
        reference="Arras, Osman, Samek 2022, arXiv:2003.07258",
        misleads="It asks for the whole object, where one part may be all that the network needs.",
    )

    def _of(self, trial: Trial, values: Tensor, mask: Tensor, row: int) -> tuple[float, str]:
        top = _order(trial, values, row) < int(mask.sum())
        return float((top & mask).sum()) / float(mask.sum()), ""


@dataclass(frozen=True)
class IoU(_OnMask):
    """Intersection over union of the mask and the map above its mean."""

    name: ClassVar[str] = "iou"
    better: ClassVar[Better] = "higher"
    ordering: ClassVar[bool] = True
    card: ClassVar[MetricCard] = MetricCard(
        title="IoU",
        question="Does the map, cut at its mean, cover the object and nothing else?",
        formula="|map > mean ∩ S| / |map > mean ∪ S|",
        reference="as in Chefer, Gur, Wolf 2021, arXiv:2012.09838 (segmentation)",
        misleads="The cut decides: a map with a few very high values has a high mean, and covers little.",
    )

    def _of(self, trial: Trial, values: Tensor, mask: Tensor, row: int) -> tuple[float, str]:
        inside = trial.allowed[row]
        found = (values > values[inside].mean()) & inside
        return float((found & mask).sum()) / float((found | mask).sum()), ""
