"""The models on offer: which there are, for which kind of input, and whether they are here."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrib
from attrib.models import MODELS, models
from attrib.models.pull import is_pulled


class Catalogue:
    """The models on offer, loaded once and then shared by everybody."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = tuple(names) or models()
        self._loaded: dict[str, Any] = {}
        self._locks = {name: threading.Lock() for name in self.names}  # a slow one keeps nobody from the others

    def __getitem__(self, name: str) -> Any:
        """Raises attrib.UnknownName for what is not on offer, attrib.ModelUnavailable for what cannot be had."""
        if name not in self.names:
            raise attrib.UnknownName("model", name, self.names)
        with self._locks[name]:
            if name not in self._loaded:
                self._loaded[name] = attrib.load(name)
            return self._loaded[name]

    def of(self, kind: str) -> tuple[str, ...]:
        """The names for one kind of input, without loading anything."""
        return tuple(name for name in self.names if kind in kinds_of(name))

    def missing(self, name: str) -> bool:
        """Whether the model has to be fetched before it can be used."""
        entry = MODELS.get(name)
        return entry is not None and name not in self._loaded and not _is_here(entry)


def kinds_of(name: str) -> tuple[str, ...]:
    """What a model explains, as far as its name tells; both where only loading it would."""
    if name in MODELS:
        return (MODELS[name].kind,)
    prefix, _, rest = name.partition(":")
    if prefix != "hf":
        return ("image",)
    try:
        config = json.loads(Path(rest, "config.json").expanduser().read_text(encoding="utf-8"))
        heads = " ".join(config.get("architectures") or ())
    except (OSError, ValueError, AttributeError, TypeError):
        return ("image", "text")
    return ("image",) if "ImageClassification" in heads else ("text",)


def _is_here(entry: Any) -> bool:
    return entry.source is None or is_pulled(entry.name, entry.source)
