"""Baselines of texts: what they replace, and names that do not fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from text_subjects import LONG, SHORT, model, question
from torch import nn

import attrib
from attrib.errors import InputError, UnknownName
from attrib.methods.baselines import TEXT_BASELINES, baseline_of


@pytest.mark.parametrize("name", TEXT_BASELINES)
def test_baselines_keep_special_tokens(name):
    subject = model("bert")
    q = question(subject, [LONG, SHORT])
    baseline = baseline_of(name, q)
    n = len(q.token_ids[1])
    assert torch.equal(baseline[:, 0], q.x[:, 0])
    assert torch.equal(baseline[1, n - 1 :], q.x[1, n - 1 :])  # [SEP] and padding
    assert not torch.equal(baseline[1, 1 : n - 1], q.x[1, 1 : n - 1])
    token = {"pad": "[PAD]", "mask": "[MASK]", "unk": "[UNK]"}.get(name)
    if token is not None:
        expected = subject.embeddings.weight[subject.tokenizer.convert_tokens_to_ids(token)]
        assert torch.equal(baseline[0, 1], expected)
    torch.testing.assert_close(baseline[1, :n], baseline_of(name, question(subject, SHORT))[0], rtol=0, atol=0)


def test_names_of_baselines_that_do_not_fit():
    subject = model("gpt2")
    subject.tokenizer = type("NoTokens", (), {"all_special_ids": [], "unk_token_id": 5})()
    with pytest.raises(InputError, match="no mask token; use zero, unk, noise"):
        baseline_of("mask", dataclasses.replace(question(model("gpt2"), LONG), model=subject))
    with pytest.raises(InputError, match="no baseline of texts; these are: zero, pad, mask, unk, noise"):
        attrib.explain(model("gpt2"), LONG, attrib.IntegratedGradients(baseline="blur"))
    with pytest.raises(UnknownName, match="nothing"):
        attrib.explain(model("gpt2"), LONG, attrib.IntegratedGradients(baseline="nothing"))
    picture = attrib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    with pytest.raises(InputError, match="no baseline of pictures; these are: zero, mean"):
        attrib.explain(picture, torch.randn(1, 3, 2, 2), attrib.IntegratedGradients(baseline="pad"))
