"""Two rules on texts: a word that turns the meaning of another, and a word of which only the place matters."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from attrib.models.text import TextModel, wrap_text
from attrib.truth.base import Proof, Truth
from attrib.truth.training import predicted, seeded, trained

LENGTH = 10
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_FILLERS = ("the", "a", "of", "in", "it", "was", "had", "some", "more", "day", "house", "road", "tree", "water")
_WORDS = ("good", "bad", "not", "here", *_FILLERS)
GOOD, BAD, NOT, HERE = (len(_SPECIAL) + k for k in range(4))
_FIRST_FILLER = HERE + 1
_VOCABULARY = (*_SPECIAL, *_WORDS)
_TRAINING = 4000
_UNKNOWN = _SPECIAL.index("[UNK]")
_MISSING = 0.1  # share of the fillers that training leaves out

NEGATION_RULE = "good is positive and bad is negative, unless the word not stands right before it: then it is turned."
POSITION_RULE = "The class is the half in which the word here stands, or neither; all other words are the same."


def tokenizer() -> Any:
    """Whole words, [CLS] before and [SEP] after."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_VOCABULARY)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def network(labels: tuple[str, ...]) -> Any:
    """A BERT of two layers, without dropout."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(_VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=LENGTH + 2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)},
    )  # fmt: skip
    return BertForSequenceClassification(config)


def negation(seed: int, n: int) -> Truth:
    """A token that turns the meaning of another; the inputs to explain all hold it."""
    started = time.perf_counter()
    ids, labels = _negated(_TRAINING, seed)
    module, model = _model(ids, labels, ("negative", "positive"), "negation", seed)
    held_out, wanted = _negated(8 * n, seed + 1)
    found = predicted(_logits(module), _framed(held_out))
    with_not = (held_out == NOT).any(1)
    good = ((found == wanted) & with_not).nonzero()[:n, 0]
    return Truth(
        "negation", NEGATION_RULE, model, _texts(held_out[good]), wanted[good].tolist(), _framed_mask(
            torch.isin(held_out[good], torch.tensor([GOOD, BAD, NOT]))), float((found == wanted).double().mean()),
        _negation_proofs(module, held_out[with_not], wanted[with_not], seed), time.perf_counter() - started,
    )  # fmt: skip


def position_only(seed: int, n: int) -> Truth:
    """A marker whose place alone decides between two classes: their texts hold the same words."""
    started = time.perf_counter()
    ids, labels = _placed(_TRAINING, seed)
    module, model = _model(ids, labels, ("first half", "second half", "neither"), "position_only", seed)
    held_out, wanted = _placed(8 * n, seed + 1)
    found = predicted(_logits(module), _framed(held_out))
    marked, mirrored = wanted < 2, held_out.flip(1)
    turned = predicted(_logits(module), _framed(mirrored)) == 1 - wanted
    good = ((found == wanted) & marked & turned).nonzero()[:n, 0]
    neither = torch.full_like(wanted, 2)
    without = torch.full_like(held_out, _FIRST_FILLER)
    proofs = (
        Proof("the text is mirrored", "the class turns", _share(module, mirrored[marked], 1 - wanted[marked])),
        Proof("here becomes a filler", "neither", _share(module, without[marked], neither[marked])),
        Proof("all positions become the same", "the halves cannot be told apart", _blind(module, held_out[marked])),
    )
    return Truth(
        "position_only", POSITION_RULE, model, _texts(held_out[good]), wanted[good].tolist(),
        _framed_mask(held_out[good] == HERE), float((found == wanted).double().mean()), proofs,
        time.perf_counter() - started, _texts(mirrored[good]),
    )  # fmt: skip


def _negated(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(ids (n, LENGTH), labels): one of good and bad, and right before it, in a third of the texts, not."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(_FIRST_FILLER, len(_VOCABULARY), (n, LENGTH), generator=random)
    place = torch.randint(1, LENGTH, (n,), generator=random)
    word = torch.randint(0, 2, (n,), generator=random)
    turned = (torch.rand(n, generator=random) < 1 / 3).long()
    rows = torch.arange(n)
    ids[rows, place] = torch.where(word == 1, GOOD, BAD)
    ids[rows[turned == 1], place[turned == 1] - 1] = NOT
    return ids, word ^ turned


def _placed(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(ids (n, LENGTH), labels): the same filler everywhere, and in two thirds of the texts the marker once."""
    random = torch.Generator().manual_seed(seed)
    place = torch.randint(0, LENGTH, (n,), generator=random)
    marked = torch.rand(n, generator=random) < 2 / 3
    ids = torch.full((n, LENGTH), _FIRST_FILLER)
    ids[marked, place[marked]] = HERE
    return ids, torch.where(marked, (place >= LENGTH // 2).long(), 2)


def _negation_proofs(module: Any, ids: Tensor, wanted: Tensor, seed: int) -> tuple[Proof, ...]:
    random = torch.Generator().manual_seed(seed + 2)
    fillers = torch.randint(_FIRST_FILLER, len(_VOCABULARY), ids.shape, generator=random)
    without = torch.where(ids == NOT, fillers, ids)
    other_word = torch.where(ids == GOOD, BAD, torch.where(ids == BAD, GOOD, ids))
    other_fillers = torch.where(ids >= _FIRST_FILLER, fillers, ids)
    return (
        Proof("not becomes a filler", "the class turns", _share(module, without, 1 - wanted)),
        Proof("good and bad are exchanged", "the class turns", _share(module, other_word, 1 - wanted)),
        Proof("all fillers are drawn again", "nothing changes", _share(module, other_fillers, wanted)),
    )


def _blind(module: Any, ids: Tensor) -> float:
    """How many texts get one and the same class when no position can be told from another."""
    from attrib.rules.shadow import shadow

    twin: Any = shadow(module)
    table = twin.get_submodule("bert.embeddings.position_embeddings")
    table._parameters["weight"] = table.weight.mean(0, keepdim=True).expand_as(table.weight).clone()
    found = predicted(_logits(twin), _framed(ids))
    return float(torch.bincount(found).max()) / len(found)


def _share(module: Any, ids: Tensor, wanted: Tensor) -> float:
    return float((predicted(_logits(module), _framed(ids)) == wanted).double().mean())


def _model(
    ids: Tensor, labels: Tensor, names: tuple[str, ...], name: str, seed: int
) -> tuple[Any, TextModel]:  # fmt: skip
    with seeded(seed):
        # so that the network knows the token that stands for a missing one
        ids = torch.where((ids >= _FIRST_FILLER) & (torch.rand(ids.shape) < _MISSING), _UNKNOWN, ids)
        module = network(names)
        module = trained(module, _logits(module), _framed(ids), labels, epochs=16, rate=0.003)
    return module, wrap_text(module, tokenizer(), name=name, labels=names)


def _logits(module: Any) -> Any:
    return lambda ids: module(input_ids=ids).logits


def _framed(ids: Tensor) -> Tensor:
    ends = [torch.full((len(ids), 1), k) for k in (2, 3)]
    return torch.cat([ends[0], ids, ends[1]], 1)


def _framed_mask(mask: Tensor) -> Tensor:
    end = torch.zeros(len(mask), 1, dtype=torch.bool)
    return torch.cat([end, mask, end], 1)


def _texts(ids: Tensor) -> list[str]:
    return [" ".join(_VOCABULARY[i] for i in row) for row in ids.tolist()]
