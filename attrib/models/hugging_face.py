"""Models in the format of the transformers library, from a local folder or the Hugging Face hub; image classifiers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attrib.errors import ModelUnavailable, UnsupportedModel
from attrib.models.hubs import ask_hub, unavailable
from attrib.models.hugging_face_text import head_of, load_text
from attrib.models.hugging_face_weights import reading, with_weights
from attrib.models.preprocessing import INTERPOLATIONS, Preprocessing, Size
from attrib.models.text import TextModel
from attrib.models.vision import VisionModel, wrap

_LONGEST_NAME = 4095  # of a path; longer ones raise where one only asks whether they are there
# resizing on tensors (transformers) and on pixels (here) may round differently: at most two grey levels of 255
_LARGEST_DIFFERENCE = 2.5 / 255


def hugging_face_model(name: str) -> VisionModel | TextModel:
    """A folder with config.json and safetensors weights, or an id on the hub. Only safetensors, never custom code."""
    folder = Path(name).expanduser()
    if len(name) <= _LONGEST_NAME and folder.is_dir():
        return _load(str(folder), local=True, full_name=f"hf:{name}")
    if name.startswith((".", "/", "~", os.sep)):
        raise ModelUnavailable(
            f"there is no folder {name!r}; give the folder of a saved transformers model, or its hub id"
        )
    try:
        return _load(name, local=True, full_name=f"hf:{name}")  # from the cache, without asking the hub
    except ModelUnavailable:
        ask_hub(f"hf:{name}", name, "config.json")
        return _load(name, local=False, full_name=f"hf:{name}")


def _load(source: str, *, local: bool, full_name: str) -> VisionModel | TextModel:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False)
    except OSError as error:
        raise unavailable(full_name, error) from error
    except (ValueError, KeyError, ImportError) as error:
        raise UnsupportedModel(f"{full_name} is of no type that can be loaded: {error}") from error
    head = head_of(config)
    if head is not None:
        return load_text(source, head, local=local, full_name=full_name)
    return _load_image(source, local=local, full_name=full_name)


def _load_image(source: str, *, local: bool, full_name: str) -> VisionModel:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    with reading(full_name, "an image classifier, text classifier or language model"):
        processor = AutoImageProcessor.from_pretrained(source, local_files_only=local, trust_remote_code=False)
        module = with_weights(AutoModelForImageClassification, source, full_name, local_files_only=local)
    config: Any = module.config
    labels = tuple(str(config.id2label.get(i, i)) for i in range(config.num_labels))
    return wrap(module, name=full_name, preprocessing=preprocessing_of(processor), labels=labels)


def preprocessing_of(processor: Any) -> Preprocessing:
    """The processor's settings as a Preprocessing, checked against what it really does to a picture."""
    settings = processor.to_dict()
    resize, crop = _sizes(settings)
    normalise = settings.get("do_normalize", True)
    mean = tuple(settings["image_mean"]) if normalise else (0.0, 0.0, 0.0)
    std = tuple(settings["image_std"]) if normalise else (1.0, 1.0, 1.0)
    resample = {int(value): key for key, value in INTERPOLATIONS.items()}[int(settings.get("resample") or 2)]
    found = Preprocessing(resize, crop, mean, std, resample)
    _check_agrees(found, processor)
    return found


def _sizes(settings: dict[str, Any]) -> tuple[Size, tuple[int, int]]:
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    if "shortest_edge" in size:
        short = int(size["shortest_edge"])
        if settings.get("crop_pct"):  # ConvNeXt: `size` is what is seen; large ones are squashed instead of cropped
            return (int(short / settings["crop_pct"]) if short < 384 else (short, short)), (short, short)
        return short, (crop["height"], crop["width"]) if crop else (short, short)
    if "height" in size:
        whole = (int(size["height"]), int(size["width"]))
        return whole, (crop["height"], crop["width"]) if crop and settings.get("do_center_crop") else whole
    raise UnsupportedModel(f"cannot read a size from the model's image processor: {size}")


def _check_agrees(found: Preprocessing, processor: Any) -> None:
    rows, columns = np.mgrid[0:300, 0:400]
    waves = [128 + 100 * np.sin(rows / a + columns / b) for a, b in ((31, 47), (53, 29), (41, 61))]
    image = Image.fromarray(np.stack(waves, axis=2).astype(np.uint8))
    theirs = processor(images=image, return_tensors="pt")["pixel_values"][0].float()
    ours = found.apply(image)
    scale = min(found.std)
    if theirs.shape != ours.shape or float((theirs - ours).abs().max()) * scale > _LARGEST_DIFFERENCE:
        raise UnsupportedModel(
            f"the image processor {type(processor).__name__} prepares pictures in a way that attrib does not know; "
            "use attrib.wrap(module, preprocessing=...) and give preprocessed tensors"
        )
