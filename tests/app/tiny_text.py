"""Two tiny transformers with a local tokenizer, offered to the app as if they were known by name.

`python -m tests.app.tiny_text` serves them; nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import transformers as tr
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from attrib.models import MODELS
from attrib.models.text import wrap_text

WORDS = "the film food was not good bad great at all script alert is a paris london capital of france in"
CLASSIFIER, LANGUAGE = "tiny-classifier", "tiny-language"


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


def offer() -> None:
    """Add them to the table of named models of this process."""
    first = next(iter(MODELS.values()))
    for name, loader in ((CLASSIFIER, classifier), (LANGUAGE, language)):
        MODELS[name] = dataclasses.replace(first, name=name, kind="text", size=10_000, loader=loader, packages=())


if __name__ == "__main__":
    from app.main import main

    offer()
    main()
