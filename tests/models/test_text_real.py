"""The two text models that are pulled, with real weights; skipped where they are not here and cannot be had."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import attrib
from attrib.errors import ModelUnavailable
from attrib.models.text import TextModel

SENTENCES = {
    "not good at all": "negative",
    "not bad": "positive",
    "I did not like it": "negative",
    "never boring": "positive",
    "The food was not good at all.": "negative",
    "I do not recommend this phone.": "negative",
    "It's a wonderful film.": "positive",
    "What a waste of time.": "negative",
    "The battery lasts long and the screen is great.": "positive",
    "I will never buy from them again.": "negative",
}


@cache
def loaded(name: str) -> TextModel:
    try:
        model = attrib.load(name)
    except ModelUnavailable as error:
        pytest.skip(str(error))
    assert isinstance(model, TextModel)
    return model


@pytest.mark.parametrize("text", list(SENTENCES))
def test_sentiment(text: str) -> None:
    best = loaded("minilm-sentiment").predict(text)[0][0]
    assert best.label == SENTENCES[text]
    assert best.probability > 0.6


def test_sentiment_model() -> None:
    model = loaded("minilm-sentiment")
    assert (model.task, model.labels, model.window) == ("classification", ("negative", "positive"), 512)
    assert not any(p.requires_grad for p in model.module.parameters())
    with pytest.raises(attrib.InputError, match="more than the 512 that minilm-sentiment can take"):
        model.encode("good " * 20_000)
    encoded = model.encode("Unbelievably good")
    assert encoded.token_texts == (("[CLS]", "Un", "bel", "ie", "va", "bly", "good", "[SEP]"),)
    assert encoded.words == ((None, 0, 0, 0, 0, 0, 1, None),)


def test_language_model() -> None:
    model = loaded("smollm2-135m")
    best = model.predict("When Mary and John went to the store, John gave a drink to")[0][0]
    assert (best.label, round(best.probability, 2)) == (" Mary", 0.92)
    encoded = model.encode("The capital of France is")
    with torch.no_grad():
        logits = model.forward(model.module, encoded.x, encoded.extra)[0]
    assert float(logits[model.index_of(" Paris")] - logits[model.index_of(" London")]) == pytest.approx(4.1, abs=0.1)


def test_an_attention_sink_is_told() -> None:
    model = loaded("smollm2-135m")
    found = {p: attrib.explain(model, "The capital of France is", attrib.LRP(preset=p)) for p in ("cp_lrp", "attn_lrp")}
    shares = {preset: float(r.values[0, 0].abs() / r.values[0].abs().sum()) for preset, r in found.items()}
    assert shares["cp_lrp"] > 0.6 and shares["attn_lrp"] < 0.3
    told = {preset: [note for note in r.notes if "attention sink" in note] for preset, r in found.items()}
    assert f"{shares['cp_lrp']:.0%}" in told["cp_lrp"][0] and not told["attn_lrp"]
