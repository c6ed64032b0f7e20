"""One question to a model, and what is wrong with it before any method runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attrib
from app import controls, offers
from app.catalogue import Catalogue

VERSUS = {
    "logits": "explain the difference of the two logits; where a method has no sign, subtract its two maps",
    "maps": "subtract the two maps, each in shares of its own total",
}

MOST_NEW = 24  # generated tokens
MOST_CELLS = 12_000  # of a triangular map


@dataclass(frozen=True)
class Ask:
    """One question. methods: (name, values of its controls); target, versus: class index, label or None.

    photo: a file. text: the text to explain instead of a photo. new_tokens: so many generated tokens are explained,
    each by all before it (0: the next one alone); continuation: what they are (empty: what the model writes).
    """

    photo: str
    model: str
    methods: tuple[tuple[str, Mapping[str, Any]], ...]
    target: int | str | None = None
    versus: int | str | None = None
    versus_by: str = "logits"
    text: str | None = None
    new_tokens: int = 0
    continuation: str = ""

    @property
    def kind(self) -> str:
        return "image" if self.text is None else "text"

    @property
    def given(self) -> str:
        """What is handed to the model. Raises attrib.InputError where there is nothing."""
        return given(self.photo, self.text)


def given(photo: str | None, text: str | None = None) -> str:
    """What the model is asked about. Raises attrib.InputError where there is nothing."""
    if text is not None:
        if not text.strip():
            raise attrib.InputError("write or paste a text first, or take an example")
        return text
    if not photo:
        raise attrib.InputError("choose a photo first: drop one, paste one, or take an example")
    return photo


def of_kind(catalogue: Catalogue, name: str, kind: str) -> Any:
    model = catalogue[name]
    if model.kind != kind:
        raise attrib.InputError(f"{name} is a model for {model.kind}s, not for {kind}s")
    return model


def method_of(name: str, values: Mapping[str, Any], kind: str) -> Any:
    known = offers.method_titles(kind)
    if name not in known:
        raise attrib.UnknownName("method", name, known)
    return controls.build(attrib.METHODS[name], kind, {**offers.USUAL_SETTINGS[kind].get(name, {}), **values})


def check_target(model: Any, ask: Ask) -> None:
    if ask.kind != "image" and ask.versus_by != "logits":
        raise attrib.InputError("maps are subtracted for photos only; a text is contrasted by the difference of logits")
    if ask.versus_by not in VERSUS:
        raise attrib.UnknownName("comparison", ask.versus_by, VERSUS)
    if ask.new_tokens:
        _check_continuation(model, ask)
        return
    indices = [model.index_of(name) for name in (ask.target, ask.versus) if name is not None]
    if len(indices) == 2 and indices[0] == indices[1]:
        raise attrib.TargetError("both targets are the same class; choose two different ones, or only one")


def _check_continuation(model: Any, ask: Ask) -> None:
    if getattr(model, "task", None) != "next_token":
        raise attrib.InputError(f"{ask.model} writes no text; a continuation needs a language model")
    if not 1 <= ask.new_tokens <= MOST_NEW:
        raise attrib.InputError(f"{ask.new_tokens} tokens to write: from 1 to {MOST_NEW}")
    size = len(model.encode(ask.given).token_ids[0]) + ask.new_tokens
    if size * ask.new_tokens > MOST_CELLS:
        raise attrib.InputError(
            f"a map of {ask.new_tokens} tokens by {size} is too large to show; take at most {MOST_CELLS // size}, or a "
            "shorter text"
        )
    if ask.versus is not None:
        model.index_of(ask.versus)


def settled(model: Any, ask: Ask) -> int | str:
    return ask.target if ask.target is not None else int(model.predict(ask.given, k=1)[0][0].index)


class WithoutPaths:
    """Says `name.png` where an error says the path of a temporary file of the server."""

    def __init__(self, photo: str | None) -> None:
        self._photo = photo or ""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, attrib.InputError) and self._photo and self._photo in str(error):
            raise attrib.InputError(str(error).replace(self._photo, Path(self._photo).name)) from None
