"""What rules on texts share: their words, a tokenizer, and a small BERT that is trained on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrib.models.text import TextModel, wrap_text
from attrib.truth.training import predicted, seeded, trained

LENGTH = 10  # words, at most
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
PAD, UNKNOWN, CLS, SEP = range(len(SPECIAL))
_FILLERS = ("the", "a", "of", "in", "it", "was", "had", "some", "more", "day", "house", "road", "tree", "water")
VOCABULARY = (*SPECIAL, "good", "bad", "not", *_FILLERS)
GOOD, BAD, NOT, FIRST_FILLER = range(len(SPECIAL), len(SPECIAL) + 4)
TRAINING = 4000
_MISSING = 0.1  # share of the fillers that training leaves out


def tokenizer(framed: bool = True) -> Any:
    """Whole words; framed: [CLS] before and [SEP] after."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    frame = {"cls_token": "[CLS]", "sep_token": "[SEP]"} if framed else {}
    if framed:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", **frame)


def network(labels: tuple[str, ...]) -> Any:
    """A BERT of two layers, without dropout."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=LENGTH + 2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)},
    )  # fmt: skip
    return BertForSequenceClassification(config)


def fitted(
    ids: Tensor, labels: Tensor, names: tuple[str, ...], name: str, seed: int, framed: bool = True
) -> tuple[Any, TextModel]:
    """A network trained on ids (n, tokens), padded with [PAD]; (module, model)."""
    with seeded(seed):
        # so that the network knows the token that stands for a missing one
        ids = torch.where((ids >= FIRST_FILLER) & (torch.rand(ids.shape) < _MISSING), UNKNOWN, ids)
        module = network(names)
        module = trained(module, logits(module), ids, labels, epochs=16, rate=0.003)
    return module, wrap_text(module, tokenizer(framed), name=name, labels=names)


def logits(module: Any) -> Callable[[Tensor], Tensor]:
    """(n, tokens) → (n, classes); what is [PAD] is not looked at."""
    return lambda ids: module(input_ids=ids, attention_mask=(ids != PAD).long()).logits


def share(module: Any, ids: Tensor, wanted: Tensor) -> float:
    """How many of the texts are given the wanted class."""
    return float((predicted(logits(module), ids) == wanted).double().mean())


def texts(ids: Tensor) -> list[str]:
    """The words as the tokenizer will read them."""
    return [" ".join(VOCABULARY[i] for i in row if i not in (PAD, CLS, SEP)) for row in ids.tolist()]
