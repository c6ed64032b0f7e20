"""What a model makes of an input, and what may be a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.catalogue import Catalogue
from app.questions import WithoutPaths, given, of_kind
from attrib.render import readable


def predict(catalogue: Catalogue, photo: str | None, model: str, k: int = 5) -> list[dict[str, Any]]:
    """The k most probable classes: index, label, probability. Raises attrib's errors without the server's paths."""
    loaded = of_kind(catalogue, model, "image")
    with WithoutPaths(photo):
        found = loaded.predict(given(photo), k=k)[0]
    return [_plain(p) for p in found]


def predict_text(catalogue: Catalogue, text: str, model: str, k: int | None = None) -> list[dict[str, Any]]:
    """The k most probable classes or next tokens (None: five or ten): index, label, probability."""
    loaded = of_kind(catalogue, model, "text")
    wanted = k if k is not None else (10 if loaded.task == "next_token" else 5)
    return [_plain(p) for p in loaded.predict(given(None, text), k=wanted)[0]]


def _plain(p: Any) -> dict[str, Any]:
    return {"index": int(p.index), "label": str(p.label), "probability": float(p.probability)}


def class_choices(catalogue: Catalogue, model: str) -> list[tuple[str, int]]:
    """(text, index) of every class, for a searchable list, whose first hit is taken: the shortest labels first.

    "cup" is in "porcupine", too, which has the lower index.
    """
    labels = enumerate(of_kind(catalogue, model, "image").labels or ())
    return [(f"{label} ({index})", index) for index, label in sorted(labels, key=lambda pair: (len(pair[1]), pair[1]))]


def text_choices(catalogue: Catalogue, model: str, found: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """(text, index) of what may be a target: every class, or the likeliest tokens of a language model."""
    labels = of_kind(catalogue, model, "text").labels
    if labels is not None:
        return [(f"{readable(label)} ({index})", index) for index, label in enumerate(labels)]
    return [(f"“{readable(row['label'])}” ({row['index']})", row["index"]) for row in found]
