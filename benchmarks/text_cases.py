"""Texts to be explained: a transformer, a number of tokens, and one fixed target for every row."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import attrib
from attrib.models import TextModel

NETWORKS = ("bert-base", "gpt2-small", "smollm2-135m")
TOKENS = (32, 128, 512)
_CLASS = 1
_TEXT = (
    "The ferry left the harbour an hour late, because the captain had been waiting for a crate of lemons that nobody "
    "wanted to sign for. It wasn't the first time: every spring somebody in the village orders far too much fruit, "
    "and every spring the same three children carry it up the hill, sell it to the tourists, and complain about it. "
)


@dataclass
class TextCase:
    """One transformer at one length. BERT-base and GPT-2 small are built with random weights, under the tokenizers of
    the two models that attrib fetches (GPT-2's vocabulary is SmolLM2's, 49,152). Parameters are frozen for all.
    """

    network: str
    tokens: int
    device: torch.device

    @property
    def batch(self) -> str:
        return f"{self.tokens} tokens"

    @cached_property
    def wrapped(self) -> TextModel:
        real: Any = attrib.load("minilm-sentiment" if self.network == "bert-base" else "smollm2-135m")
        if self.network in attrib.models.MODELS:
            real.module.to(self.device)
            return real
        module = _built(self.network, len(real.embeddings.weight)).eval().requires_grad_(False).to(self.device)
        return attrib.wrap(module, tokenizer=real.tokenizer, name=self.network)

    @property
    def module(self) -> nn.Module:
        return self.wrapped.module

    @cached_property
    def ids(self) -> list[int]:
        one = self.wrapped.tokenizer(_TEXT)["input_ids"]
        return (one * (self.tokens // len(one) + 1))[: self.tokens]

    @cached_property
    def x(self) -> Tensor:
        return self.wrapped.encode(self.ids).x

    @property
    def words(self) -> int:
        """How many words occlusion covers, one after the other."""
        words = self.wrapped.encode(self.ids).words
        return len({word for word in (words or ((),))[0] if word is not None})

    def score(self, x: Tensor) -> Tensor:
        """(rows,): the logit that every row of the table explains, at the last token of a language model."""
        keep = {} if self.network == "bert-base" else {"logits_to_keep": 1, "use_cache": False}
        return self.module(inputs_embeds=x, **keep).logits.reshape(len(x), -1)[:, _CLASS]

    @property
    def target(self) -> int:
        return _CLASS

    def copied(self) -> TextCase:
        """The same case with a module of a peer's own."""
        case = copy.copy(self)
        case.__dict__["wrapped"] = attrib.wrap(
            copy.deepcopy(self.module), tokenizer=self.wrapped.tokenizer, name=self.network
        )
        return case

    def bare(self) -> Tensor:
        """The yardstick: one forward and one backward to the embeddings."""
        leaf = self.x.clone().requires_grad_()
        return torch.autograd.grad(self.score(leaf).sum(), leaf)[0]

    def forward(self) -> Tensor:
        with torch.no_grad():
            return self.score(self.x)


def _built(network: str, vocabulary: int) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    if network == "bert-base":
        module: nn.Module = BertForSequenceClassification(BertConfig(vocab_size=vocabulary))
    else:
        module = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, bos_token_id=1, eos_token_id=2))
    return module
