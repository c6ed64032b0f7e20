"""Generated pairs agree token by token, with answers that are tokens, whatever the tokenizer."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import attrib
from attrib.patching import tasks, vocabulary

SPECIAL = ("[PAD]", "[UNK]", "[MASK]", "[END]")


@cache
def words(digits: bool = True) -> PreTrainedTokenizerFast:
    """Every word and sign of the vocabulary is a token, years are digits; a third of the names are unknown."""
    text = " ".join([*vocabulary.GIVING, *vocabulary.SPANS, *vocabulary.ABOUT_ONE, *vocabulary.BESIDE, ". he she"])
    text += " " + " ".join([*vocabulary.PLACES, *vocabulary.THINGS, *vocabulary.EVENTS])
    text += " " + " ".join(word for pair in (*vocabulary.NOUNS, *vocabulary.VERBS) for word in pair)
    known = re.findall(r"\w+|[^\w\s]", text) + [name for i, name in enumerate(vocabulary.NAMES) if i % 3]
    known += [str(digit) for digit in range(10)] if digits else []
    entries = {word: i for i, word in enumerate(dict.fromkeys((*SPECIAL, *known)))}
    made = Tokenizer(models.WordLevel(entries, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]", eos_token="[END]"
    )


def model(masked: bool = False, tokenizer=None):
    tokenizer = tokenizer or words()
    torch.manual_seed(0)
    if masked:
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        return attrib.wrap(BertForMaskedLM(BertConfig(**sizes, vocab_size=len(tokenizer))).eval(), tokenizer=tokenizer)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 3, "eos_token_id": 3}
    return attrib.wrap(GPT2LMHeadModel(GPT2Config(**sizes, vocab_size=len(tokenizer))).eval(), tokenizer=tokenizer)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", tasks.TASKS)
def test_pairs_agree_token_by_token(name, masked):
    subject = model(masked)
    task = tasks.TASKS[name](subject, n=12, seed=3)
    assert task.name == name and len(task) == len(task.pair) == len(task.target) == 12
    assert len(set(task.pair.clean)) == 12
    ids = [[subject.tokenizer(text)["input_ids"] for text in side] for side in (task.pair.clean, task.pair.corrupted)]
    assert len({len(row) for side in ids for row in side}) == 1
    differing = {
        tuple(i for i, (a, b) in enumerate(zip(*rows, strict=True)) if a != b) for rows in zip(*ids, strict=True)
    }
    assert len(differing) == 1 and differing != {()}
    unknown = subject.tokenizer.unk_token_id
    assert all(unknown not in row for side in ids for row in side)
    assert all(a != w for a, w in zip(task.answers, task.wrong, strict=True))
    result = attrib.explain(subject, task.pair, "relp", task.target)
    assert result.mean().pairs == 12 and result.values.isfinite().all()


def test_seeds():
    subject = model()
    assert tasks.ioi(subject, 5, seed=1) == tasks.ioi(subject, 5, seed=1) != tasks.ioi(subject, 5, seed=2)


def test_ioi_says_who_receives():
    task = tasks.ioi(model(), 30)
    receivers_first = set()
    for clean, corrupted, answer, wrong in zip(
        task.pair.clean, task.pair.corrupted, task.answers, task.wrong, strict=True
    ):
        first, second, giver = (word for word in re.findall(r"\w+", clean) if word in vocabulary.NAMES)
        answer, wrong = (words().convert_ids_to_tokens(token) for token in (answer, wrong))
        assert giver == wrong and {first, second} == {answer, wrong}
        assert re.sub(r"\w+ (\w+ a \w+ to)$", rf"{answer} \1", clean) == corrupted
        receivers_first.add(first == answer)
    assert len(receivers_first) == 1, "names at one position mean the same in all pairs"


def test_years_end_after_they_begin():
    task = tasks.greater_than(model(), 20)
    for clean, corrupted, answer, wrong in zip(
        task.pair.clean, task.pair.corrupted, task.answers, task.wrong, strict=True
    ):
        begin, other = (int(re.search(r"year \d\d(\d\d)", text)[1]) // 10 for text in (clean, corrupted))
        later, earlier = (int(words().convert_ids_to_tokens(token)) for token in (answer, wrong))
        assert other < earlier < begin < later


def test_pronouns_and_verbs():
    task = tasks.gendered_pronoun(model(), 20)
    for clean, answer in zip(task.pair.clean, task.answers, strict=True):
        his = any(f" {name} " in clean for name in vocabulary.HIS)
        assert words().convert_ids_to_tokens(answer) == ("he" if his else "she")
    task = tasks.subject_verb_agreement(model(), 40)
    seen = set()
    for clean, answer in zip(task.pair.clean, task.answers, strict=True):
        plural = clean.split()[1] in [many for _, many in vocabulary.NOUNS]
        verb = words().convert_ids_to_tokens(answer)
        assert verb in [verbs[plural] for verbs in vocabulary.VERBS]
        seen.add(plural)
    assert seen == {True, False}


def test_what_cannot_be_made():
    with pytest.raises(attrib.InputError, match="n = 0"):
        tasks.ioi(model(), 0)
    with pytest.raises(attrib.UnsupportedModel, match="splits the words of greater_than"):
        tasks.greater_than(model(tokenizer=words(digits=False)), 3)
    with pytest.raises(attrib.InputError, match=r"only \d+ pairs of gendered_pronoun"):
        tasks.gendered_pronoun(model(), 2000)
