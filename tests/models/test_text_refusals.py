"""Texts, models and tokenizers that cannot be explained are refused, each in a sentence that says why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoModelForTokenClassification

import attrib
from attrib.errors import InputError, UnsupportedModel
from tests.models.text_families import ROWS, byte_level, model, small, word_piece, wrapped

SHORT = "not good"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("", "empty text"),
        (" \n\t ", "nothing but white space"),
        (["good", ""], "input 1 is an empty text"),
        ("[CLS] [SEP]", "only special tokens"),
        ("half \ud83d of", "character 5 is half of a surrogate pair"),
        ("good " * 20_000, "more than the 64 that bert can take"),
        ([], "there is no input"),
        (None, "NoneType"),
        (b"good", "bytes"),
        (["good", 3], "input 1 is of type int"),
        ([1, 2, 10**6], "token id 1000000"),
        ([5, -1], "token id -1"),
        ([[5, 6], []], "input 1 holds no token ids"),
        (torch.tensor([1.5, 2.0]), "whole numbers"),
        (torch.zeros(1, 2, 3, dtype=torch.long), "whole numbers"),
        ([2, 3], "only special tokens"),
    ],
)
def test_bad_input(bad: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrapped("bert", "classification").encode(bad)


def test_exactly_one_mask() -> None:
    text_model = wrapped("bert", "masked")
    for text in ("no mask here", "[MASK] and [MASK]"):
        with pytest.raises(InputError, match=r"exactly one: write '\[MASK\]'"):
            text_model.encode(text)


def test_attention_that_would_not_fit_is_refused_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    text_model = wrapped("llama", "next_token")
    whole = 2 * 4 * 3**2 * 4  # layers, heads, pairs of tokens, bytes
    monkeypatch.setattr(attrib.memory, "free_memory", lambda device: 6 * whole)
    attrib.explain(text_model, [20, 30, 40], "gradient_attention_rollout")
    attrib.explain(text_model, [20, 30, 40], "lrp")
    with pytest.raises(InputError, match="attention over 3 tokens"):
        attrib.explain(text_model, [20, 30, 40], "deeplift")


def test_what_is_refused() -> None:
    config = AutoConfig.for_model("t5", d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=ROWS)
    with pytest.raises(UnsupportedModel, match="encoder-decoder"):
        attrib.wrap(AutoModelForSeq2SeqLM.from_config(config), tokenizer=byte_level())
    bert = small("bert", "classification").config
    with pytest.raises(UnsupportedModel, match="has no head"):
        attrib.wrap(AutoModel.from_config(bert), tokenizer=word_piece())
    with pytest.raises(UnsupportedModel, match="neither logits per class"):
        attrib.wrap(AutoModelForTokenClassification.from_config(bert), tokenizer=word_piece())
    with pytest.raises(UnsupportedModel, match="no transformers model"):
        attrib.wrap(torch.nn.Linear(2, 2), tokenizer=word_piece())
    with pytest.raises(UnsupportedModel, match=r"tokenizer=…"):
        attrib.wrap(small("bert", "classification"))
    with pytest.raises(UnsupportedModel, match="no transformers tokenizer"):
        attrib.wrap(small("bert", "classification"), tokenizer="bert")
    with pytest.raises(UnsupportedModel, match="wrapped already"):
        attrib.wrap(wrapped("bert", "classification"), tokenizer=word_piece())  # type: ignore[call-overload]


def test_what_does_not_run_from_word_embeddings_is_told_with_the_models_own_error() -> None:
    ibert = model("bert", "masked")
    body = ibert.bert.forward
    ibert.bert.forward = lambda input_ids=None, **given: body(input_ids=input_ids.clone(), **given)
    with pytest.raises(UnsupportedModel, match=r"runs from token ids, but not .* AttributeError: 'NoneType'"):
        attrib.wrap(ibert, tokenizer=word_piece())
    half = model("llama", "next_token").double()
    half.lm_head.float()
    with pytest.raises(UnsupportedModel, match=r"given input_ids: RuntimeError.* weights are float32, float64"):
        attrib.wrap(half, tokenizer=byte_level())
    tables = model("llama", "next_token")
    tables.get_input_embeddings = lambda: torch.nn.ModuleList()
    with pytest.raises(UnsupportedModel, match="gives a ModuleList"):
        attrib.wrap(tables, tokenizer=byte_level())


def test_another_models_tokenizer() -> None:
    with pytest.raises(UnsupportedModel, match="the tokenizer is not"):
        attrib.wrap(model("llama", "next_token", vocab_size=100), tokenizer=byte_level())
    with pytest.raises(UnsupportedModel, match="the tokenizer is not"):
        attrib.wrap(model("llama", "next_token", vocab_size=5000), tokenizer=word_piece())


def test_special_ids_that_are_ordinary_here_are_told() -> None:
    assert wrapped("llama", "next_token", eos_token_id=[2, 3]).notes == ()
    text_model = wrapped("llama", "next_token", bos_token_id=80, eos_token_id=[2, 90])
    told = text_model.encode(SHORT).notes
    assert len(told) == 1
    assert all(part in told[0] for part in ("may be another model's", "bos_token_id 80", "eos_token_id 90"))


def test_quantised() -> None:
    module = small("llama", "next_token")
    module.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(UnsupportedModel, match="quantised"):
        attrib.wrap(module, tokenizer=byte_level())


def test_a_model_that_also_uses_the_ids_is_refused() -> None:
    module = small("llama", "next_token")
    forward = type(module).forward

    class Peeking(type(module)):  # type: ignore[misc]
        def forward(self, input_ids: Any = None, **rest: Any) -> Any:
            outputs = forward(self, input_ids=input_ids, **rest)
            if input_ids is not None:
                outputs.logits = outputs.logits + input_ids[..., None]
            return outputs

    module.__class__ = Peeking
    with pytest.raises(UnsupportedModel, match="other logits from its word embeddings"):
        attrib.wrap(module, tokenizer=byte_level())
