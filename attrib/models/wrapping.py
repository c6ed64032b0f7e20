"""`attrib.wrap`: a model of one's own, for pictures or for text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from torch import nn

from attrib.errors import UnsupportedModel
from attrib.models.text import TextModel, wrap_text
from attrib.models.vision import VisionModel
from attrib.models.vision import wrap as wrap_vision


@overload
def wrap(
    module: nn.Module,
    *,
    name: str | None = None,
    preprocessing: Any = None,
    labels: Sequence[str] | None = None,
    tokenizer: None = None,
) -> VisionModel: ...


@overload
def wrap(
    module: nn.Module, *, name: str | None = None, labels: Sequence[str] | None = None, tokenizer: Any
) -> TextModel: ...


def wrap(
    module: nn.Module,
    *,
    name: str | None = None,
    preprocessing: Any = None,
    labels: Sequence[str] | None = None,
    tokenizer: Any = None,
) -> VisionModel | TextModel:
    """A model of your own: any nn.Module from image tensors to logits, or a transformers model and its tokenizer.

    preprocessing: of pictures: a Preprocessing, or torchvision's `weights.transforms()`; None: only tensors can be
        explained.
    tokenizer: of texts: makes a TextModel of a sequence classifier, a causal or a masked language model.
    labels: the classes' names; default: those of a text classifier's config.
    The module is used as it is and never changed. Raises UnsupportedModel for what cannot be explained, and
    OpaqueModel for TorchScript and compiled modules.
    """
    if isinstance(module, (VisionModel, TextModel)):
        raise UnsupportedModel(f"{module.name} is wrapped already")
    if tokenizer is None:
        _refuse_text_alone(module)
        return wrap_vision(module, name=name, preprocessing=preprocessing, labels=labels)
    if preprocessing is not None:
        raise UnsupportedModel("give a tokenizer or a preprocessing, not both: a model explains texts or pictures")
    return wrap_text(module, tokenizer, name=name, labels=labels)


def _refuse_text_alone(module: Any) -> None:
    """A language model without its tokenizer would only fail later, on pictures."""
    if not isinstance(module, nn.Module) or getattr(module, "main_input_name", None) != "input_ids":
        return
    raise UnsupportedModel(
        f"{type(module).__name__} reads texts: give its tokenizer too, attrib.wrap(module, tokenizer=…)"
    )
