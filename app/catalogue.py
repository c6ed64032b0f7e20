"""The models on offer: which there are, for which kind of input, and whether they are here."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrib
from attrib.models import MODELS, models

MOST_TYPED = 3  # models by a name that a visitor typed, kept in memory


class Catalogue:
    """The models on offer, loaded once and then shared by everybody.

    names: models, and patterns such as "hf:*": every name that begins so may be typed.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        wanted = tuple(names) or models()
        self.names = tuple(name for name in wanted if not name.endswith("*"))
        self.patterns = tuple(name for name in wanted if name.endswith("*"))
        self._loaded: dict[str, Any] = {}
        self._locks = {name: threading.Lock() for name in self.names}  # a slow one keeps nobody from the others
        self._typing = threading.Lock()

    def __contains__(self, name: object) -> bool:
        return name in self.names or (isinstance(name, str) and self._may_be_typed(name))

    def __getitem__(self, name: str) -> Any:
        """Raises attrib.UnknownName for what is not on offer, attrib.ModelUnavailable for what cannot be had."""
        if name not in self:
            raise attrib.UnknownName("model", str(name)[:200], (*self.names, *self.patterns))
        with self._locks.get(name, self._typing):
            if name not in self._loaded:
                if name not in self.names:
                    self._forget_typed(MOST_TYPED - 1)
                self._loaded[name] = attrib.load(name)
            return self._loaded[name]

    def of(self, kind: str) -> tuple[str, ...]:
        """The names for one kind of input, without loading anything."""
        return tuple(name for name in self.names if kind in kinds_of(name))

    def open_to(self, kind: str) -> tuple[str, ...]:
        """The patterns of names that may be typed for one kind of input."""
        return tuple(pattern for pattern in self.patterns if kind in kinds_of(pattern))

    def missing(self, name: str) -> bool:
        """Whether the model has to be fetched or, its name being typed, loaded before it can be used."""
        if name in self._loaded:
            return False
        return not MODELS[name].present() if name in MODELS else name not in self.names and name in self

    def _may_be_typed(self, name: str) -> bool:
        begins = any(name.startswith(p[:-1]) and len(name) >= len(p) for p in self.patterns)
        return begins and len(name) <= 500 and ".." not in name.split("/") and name.isprintable()

    def _forget_typed(self, most: int) -> None:
        """The models that were typed first go until `most` are left."""
        typed = [name for name in list(self._loaded) if name not in self.names]
        for name in typed[: len(typed) - most]:
            del self._loaded[name]


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
