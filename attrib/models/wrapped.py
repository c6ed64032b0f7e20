"""What models of every kind have in common: where they are, their weights' hash, their classes' names, predictions."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attrib.binding import check_labels
from attrib.errors import InputError, TargetError, UnsupportedModel
from attrib.failures import named_failures
from attrib.models.hashing import Hashed, hashed, tensors_of
from attrib.outputs import logits_of
from attrib.rules.shadow import refuse_opaque, shadow

_PREDICTED_AT_ONCE, _FEW_LABELS = 8, 10
_MOST = torch.iinfo(torch.long).max  # where nobody knows how many classes there are


class Prediction(NamedTuple):
    """One class of a prediction; `label` is the index as text where the model has no labels."""

    label: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a prediction
    probability: float


class Wrapped(ABC):
    """The base of VisionModel and TextModel, dataclasses that own the fields."""

    module: nn.Module
    name: str
    labels: tuple[str, ...] | None
    _hashed: Hashed | None

    @abstractmethod
    def encode(self, inputs: Any) -> Any:
        """`inputs` as the model takes them: an Encoded."""

    @abstractmethod
    def forward(self, twin: nn.Module, x: Tensor, extra: dict[str, Tensor]) -> Any:
        """What `twin`, a shadow of the module, returns for rows of what `encode` made."""

    def __repr__(self) -> str:
        classes = "" if self.labels is None else f", {len(self.labels)} classes"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{type(self).__name__}({self.name!r}, {type(self.module).__name__}{classes}, {dtype} on {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the first parameter or buffer lives."""
        return next((t.device for t in _each_tensor(self.module)), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the first floating-point parameter or buffer."""
        floats = (t.dtype for t in _each_tensor(self.module) if t.is_floating_point())
        return next(floats, torch.get_default_dtype())

    @property
    def weights_hash(self) -> str:
        """sha256 over every parameter and buffer with its name; see `hashing.hashed` for what changes it sees."""
        self._hashed = hashed(self.module, self._hashed)
        return self._hashed.value

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
        if not 0 <= index < (_MOST if self.labels is None else len(self.labels)):
            known = (
                ": classes are counted from 0"
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
        others = " and others" if len(self.labels) > _FEW_LABELS else ""
        few = f"{', '.join(map(repr, self.labels[:_FEW_LABELS]))}{others}"
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"its labels are {few}"
        raise TargetError(f"{self.name} has no class {label!r}; {hint}")

    def predict(self, inputs: Any, k: int = 5) -> list[list[Prediction]]:
        """The k most probable classes of every input, best first; of a language model, tokens."""
        if k < 1:
            raise InputError(f"k = {k}: ask for at least one class")
        encoded = self.encode(inputs)
        x, twin = encoded.x, shadow(self.module)
        rows = torch.arange(len(x), device=x.device).split(_PREDICTED_AT_ONCE)
        with named_failures(self.name, twin, x), torch.no_grad():
            parts = [self.forward(twin, x[r], {key: t[r] for key, t in encoded.extra.items()}) for r in rows]
            logits = torch.cat([logits_of(part).float() for part in parts])
        if logits.dim() != 2:
            raise UnsupportedModel(
                f"{self.name} returned logits of shape {tuple(logits.shape)}; (batch, classes) is needed"
            )
        check_labels(None if self.labels is None else len(self.labels), logits)
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


def _each_tensor(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, then buffers, found one by one: most callers need the first alone."""
    return chain(module.parameters(), module.buffers())


def refuse_unusable(module: nn.Module) -> None:
    """Raise UnsupportedModel for what is not a module with loaded weights, OpaqueModel for TorchScript and the like."""
    if not isinstance(module, nn.Module):
        raise UnsupportedModel(f"{type(module).__name__} is no model; give a torch.nn.Module, or attrib.load(name)")
    refuse_opaque(module)
    for path, part in module.named_modules():
        if type(part).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
            raise UnsupportedModel(f"its part {path!r} is quantised, which has no gradient; give the model in floats")
    unusable = [key for key, t in tensors_of(module).items() if t.is_meta or isinstance(t, nn.UninitializedParameter)]
    if unusable:
        raise UnsupportedModel(
            f"the weight {unusable[0]!r} has no values yet; load the weights, or run the model once, first"
        )
