"""Mixtures of experts: every expert is under the rules."""

from __future__ import annotations

import pytest
import torch
from text_subjects import SHORT, model
from torch import nn

import attrib


@pytest.mark.parametrize("preset", ["attn_lrp", "cp_lrp"])
def test_mixtures_of_experts_account_for_everything(preset):
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    tokenizer = model("gpt2").tokenizer
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    settings = {"intermediate_size": 48, "num_local_experts": 4, "vocab_size": len(tokenizer) + 2}
    module = MixtralForCausalLM(MixtralConfig(**sizes, **settings)).eval()
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, 0, 0.15)
    # the product of all experts at once has no float64
    result = attrib.explain(attrib.wrap(module, tokenizer=tokenizer), SHORT, attrib.LRP(preset=preset), 1, strict=True)
    assert not result.coverage.uncovered
    assert (result.ledger["unaccounted"] / result.score).abs().max() < 1e-4
