"""Text models: every family gives what transformers itself gives."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import attrib
from attrib.errors import InputError, TargetError, UnsupportedModel
from attrib.models.text import TextModel
from attrib.rules.shadow import shadow
from tests.models.text_families import (
    DECODERS,
    EAGER_ONLY,
    ENCODERS,
    byte_level,
    metaspace,
    model,
    rows_of,
    small,
    tokenizer_of,
    word_piece,
    wrapped,
)  # fmt: skip

NEVER = [(family, "sdpa") for family in EAGER_ONLY]  # transformers has no such thing
LONG, SHORT = "The film was not good at all.", "not good"


def logits(text_model: TextModel, inputs: Any) -> torch.Tensor:
    encoded = text_model.encode(inputs)
    with torch.no_grad():
        return text_model.forward(shadow(text_model.module), encoded.x, encoded.extra)


def reference(text_model: TextModel, ids: tuple[int, ...]) -> torch.Tensor:
    """From token ids, alone, without padding, as transformers does it."""
    with torch.no_grad():
        found = text_model.module(input_ids=torch.tensor([ids])).logits
    if text_model.task == "classification":
        return found
    at = ids.index(text_model.tokenizer.mask_token_id) if text_model.task == "masked" else -1
    return found[:, at]


@pytest.mark.parametrize(
    ("family", "attention"),
    [(family, kind) for family in DECODERS for kind in ("sdpa", "eager") if (family, kind) not in NEVER],
)
def test_causal_language_models(family: str, attention: str) -> None:
    text_model = wrapped(family, "next_token", attention=attention)
    assert text_model.task == "next_token"
    assert text_model.labels is None
    check_rows(text_model, [LONG, SHORT, LONG, "Mary"])


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text", "bloom"])
def test_causal_classifiers_do_not_read_padding(family: str) -> None:
    """transformers reads the last position of embeddings, padding or not."""
    text_model = wrapped(family, "classification", num_labels=3)
    assert text_model.task == "classification"
    check_rows(text_model, [SHORT, LONG, "Mary"])


def test_a_causal_classifier_without_padding_token() -> None:
    """transformers refuses more than one row of it."""
    check_rows(wrapped("llama", "classification", pad_token_id=None), [SHORT, LONG, LONG])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", list(ENCODERS))
def test_encoders(family: str, attention: str) -> None:
    check_rows(wrapped(family, "classification", attention=attention), [LONG, SHORT])
    masked = wrapped(family, "masked", attention=attention)
    assert masked.task == "masked"
    mask = masked.tokenizer.mask_token
    check_rows(masked, [f"The film was {mask} good.", f"not {mask}"])


def check_rows(text_model: TextModel, texts: list[str]) -> None:
    encoded = text_model.encode(texts)
    found = logits(text_model, texts)
    for i, ids in enumerate(encoded.token_ids):
        torch.testing.assert_close(found[i : i + 1], reference(text_model, ids), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits(text_model, texts[i]), found[i : i + 1], rtol=1e-4, atol=1e-4)
    assert encoded.token_texts is not None
    assert [len(t) for t in encoded.token_texts] == [len(ids) for ids in encoded.token_ids]
    assert all(len(extra) == len(texts) for extra in encoded.extra.values())
    ids = [list(row) for row in encoded.token_ids]
    torch.testing.assert_close(logits(text_model, ids), found, rtol=1e-4, atol=1e-4)
    assert text_model.encode(ids).hashes == encoded.hashes


def test_rows_may_be_repeated_and_reordered() -> None:
    """As perturbation methods do."""
    text_model = wrapped("llama", "next_token")
    encoded = text_model.encode([LONG, SHORT])
    rows = torch.tensor([1, 0, 1, 1])
    extra = {name: value[rows] for name, value in encoded.extra.items()}
    with torch.no_grad():
        found = text_model.forward(shadow(text_model.module), encoded.x[rows], extra)
    torch.testing.assert_close(found, logits(text_model, [LONG, SHORT])[rows], rtol=1e-5, atol=1e-5)


def test_the_model_is_not_touched() -> None:
    module = small("llama", "next_token").train().requires_grad_(True)
    before = copy.deepcopy(module.state_dict())
    text_model = attrib.wrap(module, tokenizer=byte_level())
    x = text_model.encode([LONG, SHORT]).x
    assert not x.requires_grad
    x += 1
    text_model.predict(LONG)
    assert module.training
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_predictions_and_targets() -> None:
    text_model = wrapped("gpt2", "next_token")
    best = text_model.predict([LONG, SHORT], k=3)
    assert [len(row) for row in best] == [3, 3]
    expected = reference(text_model, text_model.encode(LONG).token_ids[0]).softmax(1)[0]
    assert best[0][0].index == int(expected.argmax())
    assert best[0][0].probability == pytest.approx(float(expected.max()), rel=1e-4)
    token = text_model.index_of(" good")
    assert text_model.label_of(token) == " good"
    assert text_model.index_of(token) == token
    with pytest.raises(TargetError, match=r"' gooood' is not one token of gpt2: it becomes ' goo'?|becomes"):
        text_model.index_of(" gooood")
    with pytest.raises(TargetError, match="' Mary', with the leading space, is one"):
        text_model.index_of("Mary")
    for wrong in (-1, 10**6):
        with pytest.raises(TargetError, match="out of range"):
            text_model.index_of(wrong)
    for bad in ("", "\ud800", True, 1.5):
        with pytest.raises(TargetError):
            text_model.index_of(bad)


def test_labels_of_classifiers() -> None:
    module = small("bert", "classification", id2label={0: "negative", 1: "positive"})
    text_model = attrib.wrap(module, tokenizer=word_piece())
    assert text_model.labels == ("negative", "positive")
    assert text_model.index_of("Positive") == 1
    with pytest.raises(TargetError, match="did you mean 'positive'"):
        text_model.index_of("positiv")
    assert attrib.wrap(module, tokenizer=word_piece(), labels=["a", "b"]).labels == ("a", "b")
    with pytest.raises(UnsupportedModel, match="3 labels were given for 2 classes"):
        attrib.wrap(module, tokenizer=word_piece(), labels=["a", "b", "c"])
    assert text_model.bounds() is None


@pytest.mark.parametrize("family", [*ENCODERS, "gpt2", "llama"])
def test_the_window_is_the_longest_that_runs(family: str) -> None:
    head = "classification" if family in ENCODERS else "next_token"
    text_model = wrapped(family, head)
    ids = [20] * 64
    assert text_model.window == 64
    assert logits(text_model, ids).isfinite().all()
    with pytest.raises(InputError, match="has 65 tokens, more than the 64"):
        text_model.encode([*ids, 20])


def test_one_token() -> None:
    text_model = wrapped("gpt2", "next_token")
    encoded = text_model.encode([20])
    assert encoded.x.shape[:2] == (1, 1)
    assert logits(text_model, torch.tensor([20])).shape == (1, rows_of(byte_level()))


def test_padding_of_a_given_batch_is_left_out() -> None:
    text_model = wrapped("bert", "classification")
    rows = text_model.tokenizer([LONG, SHORT], padding=True, return_tensors="pt")["input_ids"]
    encoded = text_model.encode(rows)
    assert "padding tokens at the end of input 1 were left out" in encoded.notes[0]
    torch.testing.assert_close(logits(text_model, rows), logits(text_model, [LONG, SHORT]))


def test_what_the_model_cannot_read_is_told() -> None:
    text_model = wrapped("bert", "classification")
    notes = text_model.encode(["not good", "not 🫠 good " + "x" * 200]).notes
    assert notes == (f"2 of 6 tokens of input 1 are unknown to the model ('🫠', '{'x' * 20}'): it reads [UNK]",)
    assert not wrapped("gpt2", "next_token").encode("not 🫠 good").notes  # bytes are known


@pytest.mark.parametrize(
    ("family", "head"), [("bert", "classification"), ("roberta", "masked"), ("llama", "next_token")]
)
def test_saved_folders(tmp_path: Any, family: str, head: str) -> None:
    module, tokenizer = small(family, head), tokenizer_of(family)
    module.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text_model = attrib.load(f"hf:{tmp_path}")
    assert isinstance(text_model, TextModel)
    text = f"not {tokenizer.mask_token}" if head == "masked" else LONG
    own = attrib.wrap(module, tokenizer=tokenizer)
    torch.testing.assert_close(logits(text_model, text), logits(own, text))
    assert text_model.dtype == torch.float32


def test_metaspace_model() -> None:
    tokenizer = metaspace()
    text_model = attrib.wrap(model("llama", "next_token", vocab_size=rows_of(tokenizer)), tokenizer=tokenizer)
    check_rows(text_model, [LONG, "Mary 😀"])
