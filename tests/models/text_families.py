"""Small models of every family and small tokenizers of every kind, built here: no network, no weights."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

import attrib
from attrib.models.text import TextModel

TEXTS = [
    "The film was not good at all, but the music was wonderful.",
    "When Mary and John went to the store, John gave a drink to Mary.",
    "The capital of France is Paris, and the capital of England is London.",
    "It wasn't bad; I really liked it! Größe, café, naïve.",
] * 3
ROWS = 640
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
LLAMA = SMALL | {"num_key_value_heads": 2, "max_position_embeddings": 64}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": SMALL | {"max_position_embeddings": 64},
    "roberta": SMALL | {"max_position_embeddings": 66, "pad_token_id": 1},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64},
}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": SMALL | {"max_position_embeddings": 64, "rotary_pct": 0.5},
    "llama": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA | {"head_dim": 8},
    "gemma2": LLAMA | {"head_dim": 8, "sliding_window": 32},
    "gemma3_text": LLAMA | {"head_dim": 8, "sliding_window": 32},
    "mistral": LLAMA | {"sliding_window": None},
    "phi3": LLAMA | {"pad_token_id": 0, "original_max_position_embeddings": 64},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
}


EAGER_ONLY = ("gemma2", "bloom")


def model(family: str, head: str, attention: str | None = None, **more: Any) -> Any:
    """head: "classification", "next_token" or "masked"."""
    attention = attention or ("eager" if family in EAGER_ONLY else "sdpa")
    torch.manual_seed(0)
    settings = (ENCODERS | DECODERS)[family] | {"vocab_size": ROWS, **more}
    for key, token in (("bos_token_id", 1), ("eos_token_id", 2), ("pad_token_id", 0)):
        settings.setdefault(key, token)
    config = AutoConfig.for_model(family, **settings)
    classes = {
        "classification": AutoModelForSequenceClassification,
        "next_token": AutoModelForCausalLM,
        "masked": AutoModelForMaskedLM,
    }
    module = classes[head].from_config(config, attn_implementation=attention).eval()
    for parameter in module.parameters():  # the initial weights are so small that nothing depends on anything
        if parameter.dim() > 1:
            parameter.data.mul_(4)
    return module


def redrawn(module: Any) -> Any:
    """The module with larger weights than its initialiser's, the same in every dtype; vectors keep theirs nearly."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
        parameter.data = noise * 0.3 if parameter.dim() > 1 else parameter.data + noise * 0.1
    return module


@cache
def word_piece() -> Any:
    """Every word of TEXTS is one token, every other word is unknown or made of letters. The vocabulary is written out,
    not trained: the library's trainer breaks ties by chance, so two of its tokenizers give a word different ids."""
    words = sorted({word for text in TEXTS for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    letters = sorted({letter for word in words for letter in word})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters), *words]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


@cache
def byte_level() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=ROWS - 40, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", mask_token="<mask>"
    )


@cache
def metaspace() -> Any:
    """Like LLaMA 2's: the whole text is one piece, spaces are ▁, unknown characters become bytes."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=ROWS - 320, special_tokens=["<unk>", "<s>", "</s>"], max_token_length=8)
    trained.train_from_iterator(["▁" + text.replace(" ", "▁") for text in TEXTS], trainer)
    learned = json.loads(trained.to_str())["model"]
    vocabulary = learned["vocab"]
    vocabulary |= {f"<0x{i:02X}>": len(vocabulary) + i for i in range(256)}
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def tokenizer_of(family: str) -> Any:
    return word_piece() if family in ("bert", "distilbert") else byte_level()


def small(family: str, head: str, **options: Any) -> Any:
    tokenizer = tokenizer_of(family)
    return model(family, head, vocab_size=rows_of(tokenizer), **options)


def rows_of(tokenizer: Any) -> int:
    return len(tokenizer) + 7  # tables are often longer than the vocabulary


def wrapped(family: str, head: str, **options: Any) -> TextModel:
    return attrib.wrap(small(family, head, **options), tokenizer=tokenizer_of(family), name=family)
