"""Occlusion and generation from kept beginnings, against running the whole text every time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import attrib
from attrib.binding import bind
from attrib.methods.base import Question
from attrib.methods.baselines import baseline_of
from attrib.methods.units import units
from attrib.models.prefix import Prefix, keeps_prefixes
from attrib.models.text import TextModel, wrap_text
from attrib.rules.shadow import shadow

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import text_families

TEXTS = ["The film was not good at all, and the music was bad.", "wonderful music"]


def model(family: str) -> TextModel:
    return wrap_text(text_families.model(family, "next_token").double(), text_families.byte_level())


def plainly(subject: TextModel, text: str, target: Any, unit: str = "word") -> Tensor:
    """Every part covered, the whole text run, one at a time."""
    e = subject.encode(text)
    bound = bind(target, 1, subject.index_of)
    q = Question(subject, shadow(subject.module), e.x, bound, extra=e.extra, words=e.words, token_ids=e.token_ids)
    (parts,) = units(q, unit)
    blank, values = baseline_of("zero", q), torch.zeros_like(q.x[0, :, 0])
    with torch.no_grad():
        for part in range(int(parts.max()) + 1):
            x = torch.where((parts == part)[None, :, None], blank, q.x)
            values[parts == part] = (q.scores(q.x) - q.scores(x)) / (parts == part).sum()
    return values


@pytest.mark.parametrize("family", sorted(text_families.DECODERS))
def test_occlusion_is_that_of_whole_texts(family: str) -> None:
    subject = model(family)
    for target in (7, attrib.LogitDiff(7, 8)):
        found = attrib.explain(subject, TEXTS, "occlusion", target)
        for row, text in enumerate(TEXTS):
            expected = plainly(subject, text, target)
            torch.testing.assert_close(found.values[row, : len(expected)], expected, rtol=1e-5, atol=1e-6)
            assert expected.abs().max() > 1e-3
    assert subject.keeps_prefixes is True


def test_nothing_behind_the_token_that_is_read_is_run() -> None:
    subject = model("llama")
    found = attrib.explain(subject, TEXTS[0], attrib.Occlusion(unit="token"), attrib.TokenLogit(7, 4))
    beginning = subject.encode(TEXTS[0]).token_ids[0][:5]
    alone = attrib.explain(subject, list(beginning), attrib.Occlusion(unit="token"), 7)
    torch.testing.assert_close(found.values[0, :5], alone.values[0], rtol=1e-6, atol=1e-9)
    assert (found.values[0, 5:] == 0).all()


def test_a_model_that_keeps_something_else_runs_whole_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model("gpt2")
    monkeypatch.setattr(Prefix, "extend", lambda self, x, length: None)  # forgets what it was given
    found = attrib.explain(subject, TEXTS[0], "occlusion", 7)
    assert subject.keeps_prefixes is False
    torch.testing.assert_close(found.values[0], plainly(subject, TEXTS[0], 7), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_masked_models_keep_nothing(family: str) -> None:
    subject = wrap_text(text_families.model(family, "masked"), text_families.word_piece())
    assert not keeps_prefixes(subject, shadow(subject.module), subject.encode("the [MASK]").x)


@pytest.mark.parametrize("family", sorted(text_families.DECODERS))
def test_generating_token_by_token_is_generating_from_the_beginning(family: str) -> None:
    subject = model(family)
    ids = list(subject.encode(TEXTS[1]).token_ids[0])
    found = attrib.explain_generation(subject, TEXTS[1], "saliency", max_new_tokens=5)
    for row in found.target:
        logits = subject.module(input_ids=torch.tensor([ids])).logits[0, -1]
        assert row["index"] == int(logits.argmax())
        ids.append(row["index"])
    assert len(found.target) == 5 or int(subject.module(input_ids=torch.tensor([ids])).logits[0, -1].argmax()) == 2


def test_running_on_changes_nothing_that_is_kept_and_keeps_no_rows() -> None:
    subject = model("gemma3_text")  # whole and windowed attention
    twin, x = shadow(subject.module), subject.encode(TEXTS[0]).x
    prefix = Prefix(subject, twin)
    prefix.extend(x, 5)
    before = [(layer.keys, layer.values) for layer in prefix.kept.layers]
    first, again = (prefix.logits(x[:, 5:].repeat(3, 1, 1)) for _ in range(2))
    assert torch.equal(first, again) and len(before) == 2
    for layer, (keys, values) in zip(prefix.kept.layers, before, strict=True):
        assert layer.keys is keys and layer.values is values and keys.shape[0] == 1 and keys.shape[2] == 5
