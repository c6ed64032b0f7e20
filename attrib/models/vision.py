"""A vision model with everything that belongs to it: how pixels become its input and what its outputs are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from attrib.errors import InputError, UnsupportedModel
from attrib.models.encoded import Encoded
from attrib.models.first_layer import channels_taken
from attrib.models.hashing import Hashed, hash_of
from attrib.models.images import pictures_of
from attrib.models.preprocessing import Preprocessing
from attrib.models.wrapped import Wrapped, refuse_unusable
from attrib.rules.recomputing import recompute_blocks
from attrib.rules.weights import WeightCache


@dataclass(eq=False, repr=False)
class VisionModel(Wrapped):
    """An nn.Module from images to logits (batch, classes), and what surrounds it. The module is never changed.

    preprocessing: None where only preprocessed tensors can be given.
    labels: the classes' names by index, or None.
    notes: what a reader of any explanation of this model must know.
    """

    kind: ClassVar[str] = "image"

    module: nn.Module
    name: str
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    recomputes: bool = False  # see attrib.models.checkpointed
    measured_bytes: dict[Any, int] = field(default_factory=dict, repr=False)
    weight_cache: WeightCache = field(default_factory=WeightCache, init=False, repr=False)
    _hashed: Hashed | None = field(default=None, init=False, repr=False)
    _channels: int | None = field(default=None, init=False, repr=False)

    def encode(self, inputs: Any) -> Encoded:
        """Image path, bytes, PIL image, uint8 array, a list of those, or a float tensor taken as preprocessed."""
        if isinstance(inputs, Tensor):
            return self._encode_tensor(inputs)
        if isinstance(inputs, (list, tuple)) and any(isinstance(item, Tensor) for item in inputs):
            raise InputError("tensors are explained as one batch, (batch, channel, height, width): torch.stack(them)")
        pictures = pictures_of(inputs)
        if self.preprocessing is None:
            raise InputError(
                f"{self.name} has no preprocessing, so it takes no pictures; give a preprocessed float tensor "
                "(batch, channel, height, width), or attrib.wrap(module, preprocessing=Preprocessing(...))"
            )
        seen = np.stack([self.preprocessing.picture(picture.image) for picture in pictures])
        x = self.preprocessing.normalised(seen)
        notes = tuple(dict.fromkeys(note for picture in pictures for note in picture.notes))
        return Encoded(x.to(self.device, self.dtype), seen, _hashes(x), (*self.notes, *notes))

    def _encode_tensor(self, x: Tensor) -> Encoded:
        _check_tensor(x, 3 if self.preprocessing is not None else self._channels_for(x))
        x = x.detach()
        pictures = None if self.preprocessing is None else self.preprocessing.inverse(x)
        return Encoded(x.to(self.device, self.dtype, copy=True), pictures, _hashes(x), (*self.notes, *self._doubts(x)))

    def _doubts(self, x: Tensor) -> tuple[str, ...]:
        """What is said where a tensor cannot have come out of the preprocessing: raw pixels, most likely."""
        if self.preprocessing is None:
            return ()
        ends = self.preprocessing.bounds()
        low, high = float(ends[0].min()), float(ends[1].max())
        least, most = float(x.min()), float(x.max())
        if least >= 2 * low - high and most <= 2 * high - low:
            return ()
        given, usual = f"{least:.3g} to {most:.3g}", f"{low:.3g} to {high:.3g}"
        return (
            f"the tensor's values go from {given}, those of preprocessed pictures from {usual}: is it preprocessed?",
        )

    def _channels_for(self, x: Tensor) -> int | None:
        """How many channels the module takes; None when it does not say."""
        if self._channels is None and x.dim() in (3, 4) and x.numel() and x.is_floating_point():
            one = x[:1] if x.dim() == 4 else x[None]
            self._channels = channels_taken(self.module, one.detach().to(self.device, self.dtype))
        return self._channels

    def forward(self, twin: nn.Module, x: Tensor, extra: dict[str, Tensor]) -> Any:
        """What `twin`, a shadow of the module, returns for x, which stays as it is; there is nothing extra."""
        if self.recomputes:
            recompute_blocks(twin)
        return twin(x if x.requires_grad else x.clone())

    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """(low, high), (1, channel, 1, 1) each: what black and white pixels become; None when nobody knows."""
        if self.preprocessing is None:
            return None
        low, high = self.preprocessing.bounds()
        return low.to(self.device, self.dtype), high.to(self.device, self.dtype)


def wrap(
    module: nn.Module,
    *,
    name: str | None = None,
    preprocessing: Any = None,
    labels: Sequence[str] | None = None,
) -> VisionModel:
    """A model of your own: any nn.Module from image tensors to logits (batch, classes).

    preprocessing: a Preprocessing, or torchvision's `weights.transforms()`; None: only tensors can be explained.
    The module is used as it is and never changed. Raises UnsupportedModel for what is not an nn.Module, and
    OpaqueModel for TorchScript and compiled modules.
    """
    if isinstance(module, VisionModel):
        raise UnsupportedModel(f"{module.name} is wrapped already")
    refuse_unusable(module)
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        preprocessing = Preprocessing.of(preprocessing)
    return VisionModel(module, name or type(module).__name__, preprocessing, None if labels is None else tuple(labels))


def _hashes(x: Tensor) -> tuple[str, ...]:
    return tuple(hash_of({"input": row}) for row in x)


def _hint(shape: tuple[int, ...], channels: int | None) -> str:
    """The way out: of what is no picture, as a picture that the model takes apart again."""
    if len(shape) == 3 and shape[0] in ((1, 3) if channels is None else (channels,)):
        return "; add the batch dimension with x[None]"
    pictures = {
        2: ("rows of a table", "x[:, None, None]", "Flatten()"),
        3: ("signals and sequences", "x[:, :, None]", "Flatten(2)"),
        5: ("films", "x.flatten(2, 3)", f"Unflatten(2, {shape[2:4]})"),
    }
    if len(shape) not in pictures or 0 in shape or channels not in (None, shape[1]):
        return ""
    what, reshaped, back = pictures[len(shape)]
    return f"; {what} are explained as {reshaped} by attrib.wrap(torch.nn.Sequential(torch.nn.{back}, model))"


def _check_tensor(x: Tensor, channels: int | None) -> None:
    expected = f"(batch, {'channel' if channels is None else channels}, height, width)"
    shape = tuple(x.shape)
    if x.layout != torch.strided or x.is_meta:
        raise InputError(f"a tensor on {x.device.type} of layout {x.layout} holds no pixels to read; give a dense one")
    if not x.is_floating_point():
        raise InputError(
            f"a tensor of {x.dtype} is not preprocessed; give floats {expected}, or pictures as a uint8 numpy array"
        )
    if x.dim() != 4 or 0 in shape or (channels is not None and shape[1] != channels):
        raise InputError(f"a tensor of shape {shape} was given where {expected} is expected{_hint(shape, channels)}")
    finite = x.isfinite().flatten(1).all(1)
    if not finite.all():
        raise InputError(f"input {int((~finite).nonzero()[0])} of the batch holds NaN or infinite values")
