"""A vision model with everything that belongs to it: how pixels become its input and what its outputs are called."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attrib.errors import AttribError, InputError, TargetError, UnsupportedModel
from attrib.models.hashing import fingerprint, hash_of, tensors_of
from attrib.models.images import pictures_of
from attrib.models.preprocessing import Preprocessing
from attrib.rules.shadow import refuse_opaque, shadow
from attrib.rules.weights import WeightCache
from attrib.targets import logits_of

_PREDICTED_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Encoded:
    """Inputs as the model takes them.

    x: (batch, channel, height, width), float, on the model's device.
    pictures: (batch, height, width, 3) uint8, what the model sees; None when nobody knows.
    hashes: one sha256 per input, of x before it was moved to the model's device and dtype.
    notes: what was decided about the inputs, one sentence each.
    extra: what else the model takes, a row per input; token_texts, words: of texts only.
    """

    x: Tensor
    pictures: np.ndarray | None
    hashes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    extra: dict[str, Tensor] = field(default_factory=dict)
    token_texts: tuple[tuple[str, ...], ...] | None = None
    words: tuple[tuple[int | None, ...], ...] | None = None


class Prediction(NamedTuple):
    """One class of a prediction; `label` is the index as text where the model has no labels."""

    label: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a prediction
    probability: float


@dataclass(eq=False)
class VisionModel:
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
    measured_bytes: dict[Any, int] = field(default_factory=dict, repr=False)
    weight_cache: WeightCache = field(default_factory=WeightCache, init=False, repr=False)
    _hashed: tuple[Any, str] | None = field(default=None, init=False, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the first parameter or buffer lives."""
        return next((t.device for t in tensors_of(self.module).values()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the first floating-point parameter or buffer."""
        floats = (t.dtype for t in tensors_of(self.module).values() if t.is_floating_point())
        return next(floats, torch.get_default_dtype())

    @property
    def weights_hash(self) -> str:
        """sha256 over every parameter and buffer with its name; computed again when one was changed in place."""
        state = fingerprint(self.module)
        if self._hashed is None or self._hashed[0] != state:
            self._hashed = (state, hash_of(tensors_of(self.module)))
        return self._hashed[1]

    def encode(self, inputs: Any) -> Encoded:
        """Image path, bytes, PIL image, uint8 array, a list of those, or a float tensor taken as preprocessed."""
        if isinstance(inputs, Tensor):
            return self._encode_tensor(inputs)
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
        channels = 3 if self.preprocessing is not None else _input_channels(self.module)
        _check_tensor(x, channels)
        x = x.detach()
        pictures = None if self.preprocessing is None else self.preprocessing.inverse(x)
        return Encoded(x.to(self.device, self.dtype, copy=True), pictures, _hashes(x), self.notes)

    def index_of(self, name: int | str) -> int:
        """The index of a class given by index or label. TargetError names what would work."""
        if isinstance(name, str):
            return self._index_of_label(name)
        try:
            index = operator.index(name)
        except TypeError:
            raise TargetError(
                f"cannot look up a class by {type(name).__name__} {name!r}; give an int or a label"
            ) from None
        if isinstance(name, bool):
            raise TargetError(f"cannot look up a class by {name}; give an int or a label")
        if index < 0 or (self.labels is not None and index >= len(self.labels)):
            known = (
                ""
                if self.labels is None
                else f": {self.name} has {len(self.labels)} classes, 0 to {len(self.labels) - 1}"
            )
            raise TargetError(f"target {index} is out of range{known}")
        return index

    def _index_of_label(self, label: str) -> int:
        if self.labels is None:
            raise TargetError(f"{self.name} has no labels, so {label!r} cannot be looked up; give the class's index")
        found = [i for i, known in enumerate(self.labels) if known == label]
        found = found or [i for i, known in enumerate(self.labels) if known.casefold() == label.strip().casefold()]
        if len(found) == 1:
            return found[0]
        if found:
            raise TargetError(f"{len(found)} classes are called {label!r}; give one of the indices {found}")
        folded = {known.casefold(): known for known in self.labels}
        near = [folded[key] for key in get_close_matches(label.casefold(), folded, n=3, cutoff=0.5)]
        near += [
            known for known in self.labels if label and label.casefold() in known.casefold() and known not in near
        ][:3]
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"labels are such as {self.labels[0]!r}"
        raise TargetError(f"{self.name} has no class {label!r}; {hint}")

    def forward(self, twin: nn.Module, x: Tensor, extra: dict[str, Tensor]) -> Any:
        """What `twin`, a shadow of the module, returns for x; pictures come with nothing extra."""
        return twin(x)

    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """(low, high), (1, channel, 1, 1) each: what black and white pixels become; None when nobody knows."""
        if self.preprocessing is None:
            return None
        low, high = self.preprocessing.bounds()
        return low.to(self.device, self.dtype), high.to(self.device, self.dtype)

    def predict(self, inputs: Any, k: int = 5) -> list[list[Prediction]]:
        """The k most probable classes of every input, best first."""
        if k < 1:
            raise InputError(f"k = {k}: ask for at least one class")
        x = self.encode(inputs).x
        twin = shadow(self.module)
        try:
            with torch.no_grad():
                logits = torch.cat([logits_of(twin(part)).float() for part in x.split(_PREDICTED_AT_ONCE)])
        except (AttribError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the module is anybody's code
            raise UnsupportedModel(
                f"{self.name} failed on an input of shape {tuple(x.shape)} with {type(error).__name__}: {error}"
            ) from error
        if logits.dim() != 2:
            raise UnsupportedModel(
                f"{self.name} returned logits of shape {tuple(logits.shape)}; (batch, classes) is needed"
            )
        if not logits.isfinite().all():
            raise UnsupportedModel(f"{self.name} returned NaN or infinite logits for this input")
        probabilities, indices = logits.softmax(1).topk(min(k, logits.shape[1]))
        return [
            [Prediction(self.label_of(index), index, p) for index, p in zip(row, ps, strict=True)]
            for row, ps in zip(indices.tolist(), probabilities.tolist(), strict=True)
        ]

    def label_of(self, index: int) -> str:
        """The class's name, or its index as text where it has none."""
        return self.labels[index] if self.labels is not None and index < len(self.labels) else str(index)


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
    if not isinstance(module, nn.Module):
        raise UnsupportedModel(
            f"cannot explain a {type(module).__name__}; give a torch.nn.Module, or attrib.load(name)"
        )
    refuse_opaque(module)
    unusable = [key for key, t in tensors_of(module).items() if t.is_meta or isinstance(t, nn.UninitializedParameter)]
    if unusable:
        raise UnsupportedModel(
            f"the weight {unusable[0]!r} has no values yet; load the weights, or run the model once, first"
        )
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        preprocessing = Preprocessing.of(preprocessing)
    return VisionModel(module, name or type(module).__name__, preprocessing, None if labels is None else tuple(labels))


def _hashes(x: Tensor) -> tuple[str, ...]:
    return tuple(hash_of({"input": row}) for row in x)


def _input_channels(module: nn.Module) -> int | None:
    """What the first convolution takes; None where there is none."""
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    return None if first is None else first.in_channels


def _check_tensor(x: Tensor, channels: int | None) -> None:
    expected = f"(batch, {'channel' if channels is None else channels}, height, width)"
    shape = tuple(x.shape)
    if not x.is_floating_point():
        raise InputError(
            f"a tensor of {x.dtype} is not preprocessed; give floats {expected}, or pictures as a uint8 numpy array"
        )
    if x.dim() != 4 or 0 in shape or (channels is not None and shape[1] != channels):
        hint = "; add the batch dimension with x[None]" if x.dim() == 3 and channels in (None, shape[0]) else ""
        raise InputError(f"a tensor of shape {shape} was given where {expected} is expected{hint}")
    finite = x.isfinite().flatten(1).all(1)
    if not finite.all():
        raise InputError(f"input {int((~finite).nonzero()[0])} of the batch holds NaN or infinite values")
