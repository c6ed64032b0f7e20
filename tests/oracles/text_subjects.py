"""Small text models, short texts and cheap methods that the tests of texts share."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import attrib
from attrib.binding import bind
from attrib.methods.base import Question
from attrib.models.text import TextModel, wrap_text
from attrib.rules.shadow import shadow

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import text_families

LONG, SHORT = "The film was not good at all.", "wonderful music"
FAMILIES = {"bert": "classification", "gpt2": "next_token", "llama": "next_token"}
NAMES = [name for name, cls in attrib.METHODS.items() if "text" in cls.applies_to]
_CHEAP = {"n_steps": 4, "n_samples": 16}


def model(family: str, attention: str | None = None) -> TextModel:
    tokenizer = text_families.word_piece() if family == "bert" else text_families.byte_level()
    module = text_families.model(family, FAMILIES[family], attention).double()
    return wrap_text(module, tokenizer)


def cheap(name: str) -> Any:
    method = attrib.METHODS[name]()
    fields = {field.name for field in dataclasses.fields(method)}
    return dataclasses.replace(method, **{k: v for k, v in _CHEAP.items() if k in fields})


def question(subject: TextModel, text: str | list[str], target: int = 1) -> Question:
    e = subject.encode(text)
    bound = bind(target, len(e.x), subject.index_of)
    return Question(subject, shadow(subject.module), e.x, bound, extra=e.extra, words=e.words, token_ids=e.token_ids)


def score(q: Question, x: Tensor) -> Tensor:
    with torch.no_grad():
        return q.scores(x)
