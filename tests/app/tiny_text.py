"""Tiny transformers with local tokenizers, offered to the app as if they were known by name.

`python -m tests.app.tiny_text` serves them; nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import torch
import transformers as tr
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from attrib.models import MODELS
from attrib.models.text import wrap_text
from attrib.patching.pruned import Pruned
from attrib.patching.vocabulary import BESIDE, NOUNS, VERBS

WORDS = "the film food was not good bad great at all script alert is a paris london capital of france in"
CLASSIFIER, LANGUAGE, AGREEING = "tiny-classifier", "tiny-language", "tiny-agreeing"


def tokenizer() -> Any:
    """Words, letters and their continuations; everything else is unknown."""
    letters = [chr(c) for c in range(33, 127)]
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), *letters, *(f"##{c}" for c in letters)]
    vocabulary = {entry: i for i, entry in enumerate(dict.fromkeys(entries))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tr.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip


def classifier() -> Any:
    torch.manual_seed(0)
    words = tokenizer()
    config = tr.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, num_labels=3, id2label={0: "bad", 1: "good", 2: "<b>so-so</b>"},
    )  # fmt: skip
    module = tr.BertForSequenceClassification(config).eval().requires_grad_(False)
    return wrap_text(module, words, name=CLASSIFIER)


def language() -> Any:
    torch.manual_seed(0)
    words = tokenizer()
    config = tr.LlamaConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    return wrap_text(tr.LlamaForCausalLM(config).eval().requires_grad_(False), words, name=LANGUAGE)


def agreeing() -> Any:
    """A language model whose tokens are the words of subject–verb agreement, each whole."""
    torch.manual_seed(0)
    every = [*" ".join(BESIDE).split(), *(word for pair in (*NOUNS, *VERBS) for word in pair)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(["[UNK]", *every]))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = tr.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", model_max_length=64)
    config = tr.LlamaConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    return wrap_text(tr.LlamaForCausalLM(config).eval().requires_grad_(False), words, name=AGREEING)


def offer(*more: tuple[str, Any]) -> None:
    """Add them to the table of named models of this process."""
    first = next(iter(MODELS.values()))
    for name, loader in ((CLASSIFIER, classifier), (LANGUAGE, language), *more):
        MODELS[name] = dataclasses.replace(first, name=name, kind="text", size=10_000, loader=loader, packages=())


def hold(flag: Path) -> None:
    """Let circuits wait in a block for as long as this file is there, so that they can be stopped in the middle."""
    plain = Pruned._layer

    def layer(*given: Any) -> None:
        while flag.exists():
            time.sleep(0.05)
        plain(*given)

    Pruned._layer = layer  # type: ignore[method-assign]


if __name__ == "__main__":
    from app.main import main

    offer((AGREEING, agreeing))
    if "ATTRIB_TEST_HOLD" in os.environ:
        hold(Path(os.environ["ATTRIB_TEST_HOLD"]))
    main()
