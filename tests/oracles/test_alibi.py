"""ALiBi: a bias that heads add to their keys, handed over by itself, as a mask, or inside one, fused or spelled out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_transformers import LAYERS, TOKENS, WIDTH, build, embeddings, explain, seeded
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, FalconConfig, MptConfig

from attrib.methods.base import Finding
from attrib.models.positions import is_alibi

PRESETS = ["attn_lrp", "cp_lrp"]
TARGETS = [1, 0]
HEADS = 2


class Biased(nn.Module):
    """handed: the bias as "alibi", beside the causal mask, or inside it. The score is read at the last token."""

    def __init__(self, fused: bool, handed: str) -> None:
        super().__init__()
        self.block, self.handed = BiasedAttention(fused), handed

    def forward(self, inputs_embeds: Tensor) -> Tensor:
        n = inputs_embeds.shape[1]
        slopes = torch.tensor([0.3, 0.1]).double()[None, :, None, None]
        bias = -slopes * torch.arange(n - 1, -1, -1)
        causal = torch.ones(n, n).tril().bool()
        lowest = torch.full((), torch.finfo(torch.float64).min, dtype=torch.float64)
        if self.handed == "inside":
            return self.block(inputs_embeds, attention_mask=torch.where(causal, bias, lowest))
        return self.block(
            inputs_embeds, attention_mask=torch.where(causal, torch.zeros_like(lowest), lowest)[None, None], alibi=bias
        )


class BiasedAttention(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, 8, bias=False) for _ in range(3))
        self.fused = fused

    def forward(self, x: Tensor, attention_mask: Tensor, alibi: Tensor | float = 0.0) -> Tensor:
        q, k, v = (f(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mask = alibi + attention_mask
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            mixed = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5 + mask, -1) @ v
        return mixed[:, :, -1].flatten(1)


def same(a: Finding, b: Finding) -> None:
    for name in ("content", "position"):
        torch.testing.assert_close(a.parts[name], b.parts[name], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("tokens", [TOKENS, HEADS + 1, HEADS])
def test_a_bias_gets_the_same_wherever_it_is(tokens, preset):
    """As many tokens as heads are not taken for heads."""
    ways = [(True, "beside"), (False, "beside"), *([(True, "inside"), (False, "inside")] if tokens > HEADS else [])]
    x = embeddings(2, tokens)
    found = [explain(seeded(Biased(*way)), x, TARGETS, preset=preset, positions=True) for way in ways]
    for other in found[1:]:
        same(found[0], other)
    position = found[0].parts["position"]
    assert position.shape == (2, tokens) and bool(position.any()) == (preset == "attn_lrp")
    assert (position[:, -1] == 0).all()  # its own bias is 0
    assert all(f.ledger["unaccounted"].abs().max() < 1e-10 for f in found)


def mpt() -> nn.Module:
    config = MptConfig(d_model=WIDTH, n_heads=4, n_layers=LAYERS, max_seq_len=16, vocab_size=20, use_cache=False)
    return seeded(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))


def falcon(attention: str) -> nn.Module:
    config = FalconConfig(vocab_size=20, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4, alibi=True)
    return seeded(AutoModelForCausalLM.from_config(config, attn_implementation=attention))


MODELS = {"mpt": mpt, "falcon sdpa": lambda: falcon("sdpa"), "falcon eager": lambda: falcon("eager")}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", MODELS)
def test_the_bias_of_whole_models(name, preset):
    """Falcon's is inside its mask; handed over beside it as well, but not added again where attention is fused."""
    module, x = MODELS[name](), embeddings()
    found = explain(module, x, TARGETS, preset=preset, positions=True)
    alone = [explain(module, x[i : i + 1], [t], preset=preset, positions=True) for i, t in enumerate(TARGETS)]
    reached = preset == "attn_lrp"
    assert found.ledger["unaccounted"].abs().max() < 1e-5 * max(v.abs().max() for v in found.ledger.values())
    assert found.parts["position_by_layer"].shape == (2, LAYERS if reached else 1, TOKENS)
    assert bool(found.parts["position"].any()) == reached and any("experimental" in note for note in found.notes)
    assert any("CP-LRP cuts" in note for note in found.notes) == (not reached)
    torch.testing.assert_close(found.parts["position"], torch.cat([a.parts["position"] for a in alone]))


def test_as_many_heads_as_tokens():
    """BLOOM's four heads and four tokens; the first token's bias is 0, and later ones change nothing before them."""
    module, x = build("bloom", "eager"), embeddings(2, 4)
    position = explain(module, x, TARGETS, preset="attn_lrp", positions=True).parts["position"]
    assert (position[:, 0] == 0).all() and (position[:, 1:] != 0).all()


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Module()
        self.block.forward = lambda x, alibi: x.mean(1)  # type: ignore[method-assign]

    def forward(self, inputs_embeds: Tensor) -> Tensor:
        return self.block(inputs_embeds, alibi=torch.arange(4.0).double()[None, None, None])


def test_positions_that_nothing_uses_are_told_as_that():
    found = explain(Unused(), embeddings(1, 4), [1], preset="attn_lrp", positions=True)
    assert any("the score does not depend on those found in block" in note for note in found.notes)


def test_what_is_alibi():
    falling = -torch.arange(20.0)[None, None] * torch.tensor([0.5, 0.0625])[:, None, None]
    assert is_alibi(falling) and is_alibi(falling.bfloat16()) and is_alibi((falling * 0.7).bfloat16())
    assert not is_alibi(torch.zeros(2, 1, 20)) and not is_alibi(falling[..., :2])
    assert not is_alibi(falling.square()) and not is_alibi(torch.randn(2, 1, 20))
