"""Models by name, models of your own, and what belongs to them: preprocessing, labels, example photos.

The package itself may be called: `attrib.models()` is the tuple of names that `attrib.load` knows without a hub.
"""

from __future__ import annotations

import sys
import types

from attrib.models.assets import photos
from attrib.models.checkpoint import checkpointed
from attrib.models.encoded import Encoded, EncodedText
from attrib.models.fast import FastReport, compare_fast, fast
from attrib.models.preprocessing import Preprocessing
from attrib.models.registry import MODELS, SOURCES, ModelEntry, load, models
from attrib.models.text import TextModel
from attrib.models.vision import VisionModel
from attrib.models.wrapped import Prediction
from attrib.models.wrapping import wrap

__all__ = [
    "MODELS",
    "SOURCES",
    "Encoded",
    "EncodedText",
    "FastReport",
    "ModelEntry",
    "Prediction",
    "Preprocessing",
    "TextModel",
    "VisionModel",
    "checkpointed",
    "compare_fast",
    "fast",
    "load",
    "models",
    "photos",
    "wrap",
]


class _Callable(types.ModuleType):
    """`attrib.models` is this package to an import statement, and the public name of the list to a caller."""

    def __call__(self) -> tuple[str, ...]:
        return models()


sys.modules[__name__].__class__ = _Callable
