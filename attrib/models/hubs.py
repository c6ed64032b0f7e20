"""Models by the names of torchvision and timm: weights from their hubs, or from a safetensors file of your own.

"torchvision:resnet18" fetches the default weights once into torch's cache. "torchvision:resnet18@FILE" reads a
safetensors file and needs no network; its metadata may hold "labels", a JSON list of the classes' names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from attrib.errors import ModelUnavailable, UnknownName, UnsupportedModel
from attrib.models.embedded import imagenet_labels, ready
from attrib.models.preprocessing import Preprocessing
from attrib.models.vision import VisionModel

_OFFLINE = (
    "connect to the internet and try again, give {what} of your own, or use a model that is on this machine: "
    "efficientnet-lite0, squeezenet1_1"
)


def torchvision_model(name: str) -> VisionModel:
    """torchvision's classification model `name`, or name@file."""
    from torchvision import models  # deferred: takes a second to import

    architecture, _, file = name.partition("@")
    known = models.list_models(module=models)
    if architecture not in known:
        raise UnknownName("torchvision classification model", architecture, known)
    weights = models.get_model_weights(architecture).DEFAULT
    preprocessing = Preprocessing.of(weights.transforms())
    # the two models that are shown differently normalised pixels when they are pretrained
    options: dict[str, Any] = {"transform_input": True} if architecture in ("googlenet", "inception_v3") else {}
    if options:
        options |= {"init_weights": False}

    def build(classes: int) -> nn.Module:
        module: nn.Module = models.get_model(architecture, weights=None, num_classes=classes, **options)
        return module

    if file:
        return _from_file(f"torchvision:{name}", Path(file), build, preprocessing)
    try:
        # torchvision's own loading would unpickle whatever arrives; this reads tensors only
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise unavailable(f"torchvision:{name}", error) from error
    labels = tuple(weights.meta["categories"])
    return ready(build(len(labels)), state, f"torchvision:{name}", preprocessing, labels)


def timm_model(name: str) -> VisionModel:
    """timm's model `name` (with its pretraining tag, if any), or name@file."""
    import timm

    architecture, _, file = name.partition("@")
    if not timm.is_model(architecture):
        raise UnknownName("timm model", architecture, timm.list_models())

    def build(classes: int) -> nn.Module:
        module: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=classes)
        return module

    config = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    preprocessing = _timm_preprocessing(config)
    if file:
        return _from_file(f"timm:{name}", Path(file), build, preprocessing)
    if config is not None and config.hf_hub_id:
        ask_hub(f"timm:{name}", config.hf_hub_id, "model.safetensors", "pytorch_model.bin")
    try:
        module = timm.create_model(architecture, pretrained=True)
    except (OSError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise unavailable(f"timm:{name}", error) from error
    labels = _imagenet_if(module.num_classes)
    return ready(module, module.state_dict(), f"timm:{name}", preprocessing, labels)


def ask_hub(full_name: str, repository: str, *files: str) -> None:
    """Ask the Hugging Face hub once for files that are not kept here: its libraries try for half a minute.

    Raises ModelUnavailable where nobody answers. What is wrong with an answer is told by who loads the files.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        if not any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
            get_hf_file_metadata(hf_hub_url(repository, files[0]), timeout=10)
    except (HfHubHTTPError, HFValidationError):
        return
    except Exception as error:  # each of the hub's versions has its own client with its own errors
        raise unavailable(full_name, error) from error


def _timm_preprocessing(config: Any) -> Preprocessing:
    from timm.data import resolve_data_config

    data = resolve_data_config(pretrained_cfg=config.to_dict() if config is not None else {})
    height, width = data["input_size"][1:]
    resize: int | tuple[int, int] = math.floor(min(height, width) / data["crop_pct"])
    if data["crop_mode"] == "squash" or height != width:
        resize = (math.floor(height / data["crop_pct"]), math.floor(width / data["crop_pct"]))
    interpolation = "bicubic" if data["interpolation"] == "random" else data["interpolation"]
    return Preprocessing(resize, (height, width), tuple(data["mean"]), tuple(data["std"]), interpolation)


@dataclass(frozen=True)
class _WeightFile:
    state: dict[str, Tensor]
    labels: tuple[str, ...] | None


def _from_file(name: str, path: Path, build: Callable[[int], nn.Module], preprocessing: Preprocessing) -> VisionModel:
    file = _read(path)
    classes = _classes_in(file.state, build)
    module = build(classes)
    wanted, given = module.state_dict(), file.state
    wrong = [key for key in wanted if key not in given or given[key].shape != wanted[key].shape]
    wrong += [key for key in given if key not in wanted]
    if wrong:
        raise UnsupportedModel(
            f"{path.name} does not hold the weights of {name.partition('@')[0]}: {len(wrong)} tensors are missing, "
            f"unknown or of another shape, such as {', '.join(wrong[:3])}"
        )
    if file.labels is not None and len(file.labels) != classes:
        raise UnsupportedModel(f"{path.name} names {len(file.labels)} labels for {classes} classes")
    return ready(module, given, name, preprocessing, file.labels or _imagenet_if(classes))


def _read(path: Path) -> _WeightFile:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
            labels = json.loads((file.metadata() or {}).get("labels", "null"))
    except FileNotFoundError as error:
        raise ModelUnavailable(f"there is no file {str(path)!r}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelUnavailable(
            f"{str(path)!r} is not a readable safetensors file ({error}); pickled weights (.pt, .pth, .bin) are "
            "refused because loading one can run code: convert them with safetensors.torch.save_file"
        ) from error
    return _WeightFile(state, None if labels is None else tuple(map(str, labels)))


def _classes_in(state: dict[str, Tensor], build: Callable[[int], nn.Module]) -> int:
    """The number of classes: the first dimension, in the file, of the tensors whose shape depends on it."""
    with torch.device("meta"):
        one, two = build(7).state_dict(), build(8).state_dict()
    depending = [key for key in one if one[key].shape != two[key].shape and key in state and state[key].dim() > 0]
    return int(state[depending[-1]].shape[0]) if depending else 1000


def _imagenet_if(classes: int) -> tuple[str, ...] | None:
    return imagenet_labels() if classes == 1000 else None


def unavailable(name: str, error: BaseException) -> ModelUnavailable:
    """What to say when a hub did not answer."""
    what = "a folder as hf:FOLDER" if name.startswith("hf:") else f"a file as {name}@FILE.safetensors"
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, SafetensorError):
        reason = f"its safetensors file is damaged ({reason})"
    if isinstance(error, UnpicklingError):
        reason = "its file holds more than tensors and was refused, because reading it could run code"
    return ModelUnavailable(f"the weights of {name} could not be fetched: {reason}; " + _OFFLINE.format(what=what))
