"""GPT-2, BERT and ViT as transformers has them, against explicit rules in relevance form, in float64: content and
positions, signed and absolute. (LLaMA's own norms and angles are float32 inside: see test_transformer_rules.)
"""

from __future__ import annotations

from typing import Any

import explicit_rules as rule
import pytest
import torch
import torch.nn.functional as F
import transformers as tr
from explicit_rules import Node
from tiny_transformers import TOKENS, WIDTH, build, embeddings, explain, seeded
from torch import Tensor, nn

import attrib

TARGETS = [1, 0]
CAUSAL = torch.full((TOKENS, TOKENS), float("-inf"), dtype=torch.float64).triu(1)
Explicit = tuple[Node, Node, Node]  # input, positions, logits of every token


def normed(x: Node, norm: nn.LayerNorm) -> Node:
    return rule.layer_norm(x, norm.weight, norm.bias, norm.eps)


def through(x: Node, layer: Any) -> Node:
    weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.T  # transformers' Conv1D
    return rule.linear(x, weight, layer.bias)


def part(x: Node, number: int) -> Node:
    """One of the thirds of a width."""
    start, after = number * WIDTH, (2 - number) * WIDTH
    return x.then(x.value[..., start : start + WIDTH], lambda r: (F.pad(r, (start, after)),))


def attended(projected: list[Node], output: Any, mask: Tensor, preset: str) -> Node:
    q, k, v = (rule.heads(p, 4) for p in projected)
    return through(rule.joined(rule.attention(q, k, v, mask, preset)), output)


def gpt2(net: Any, x: Tensor, preset: str) -> Explicit:
    tape: list[Node] = []
    first, body = Node(tape, x), net.transformer
    positions = Node(tape, body.wpe.weight[:TOKENS].expand_as(x))
    state = rule.add(first, positions)
    for block in body.h:
        projected = through(normed(state, block.ln_1), block.attn.c_attn)
        thirds = [part(projected, i) for i in range(3)]
        state = rule.add(state, attended(thirds, block.attn.c_proj, CAUSAL, preset))
        y = through(normed(state, block.ln_2), block.mlp.c_fc)
        y = rule.passed(y, F.gelu(y.value, approximate="tanh"))
        state = rule.add(state, through(y, block.mlp.c_proj))
    return first, positions, through(normed(state, body.ln_f), net.lm_head)


def bert(net: Any, x: Tensor, preset: str) -> Explicit:
    tape: list[Node] = []
    first, tables = Node(tape, x), net.bert.embeddings
    positions = Node(tape, tables.position_embeddings.weight[:TOKENS].expand_as(x))
    kinds = Node(tape, tables.token_type_embeddings.weight[0].expand_as(x))
    state = normed(rule.add(rule.add(first, kinds), positions), tables.LayerNorm)
    for layer in net.bert.encoder.layer:
        own, output = layer.attention.self, layer.attention.output
        projected = [through(state, m) for m in (own.query, own.key, own.value)]
        mixed = attended(projected, output.dense, torch.zeros_like(CAUSAL), preset)
        state = normed(rule.add(state, mixed), output.LayerNorm)
        y = through(state, layer.intermediate.dense)
        y = rule.passed(y, F.gelu(y.value))
        state = normed(rule.add(state, through(y, layer.output.dense)), layer.output.LayerNorm)
    pooled = through(state, net.bert.pooler.dense)
    return first, positions, through(rule.passed(pooled, pooled.value.tanh()), net.classifier)


def vit(net: Any, pixels: Tensor, preset: str) -> Explicit:
    """first: the patches, (batch, 4, 3 · 8 · 8)."""
    tape: list[Node] = []
    patches = pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(len(pixels), 4, -1)
    first, tables = Node(tape, patches), net.vit.embeddings
    projection = tables.patch_embeddings.projection
    tokens = rule.linear(first, projection.weight.flatten(1), projection.bias)
    token = Node(tape, tables.cls_token.expand(len(pixels), 1, -1))
    both = token.then(torch.cat((token.value, tokens.value), 1), lambda r: (r[:, :1], r[:, 1:]), tokens)
    positions = Node(tape, tables.position_embeddings.expand_as(both.value))
    state = rule.add(both, positions)
    for layer in net.vit.layers:
        own, y = layer.attention, normed(state, layer.layernorm_before)
        projected = [through(y, m) for m in (own.q_proj, own.k_proj, own.v_proj)]
        state = rule.add(state, attended(projected, own.o_proj, torch.zeros(5, 5).double(), preset))
        y = through(normed(state, layer.layernorm_after), layer.mlp.fc1)
        state = rule.add(state, through(rule.passed(y, F.gelu(y.value)), layer.mlp.fc2))
    return first, positions, through(normed(state, net.vit.layernorm), net.classifier)


@torch.no_grad()
def relevance(explicit: Explicit, read: int) -> tuple[Tensor, Tensor]:
    """Of the input's values, and of each token's position."""
    first, positions, logits = explicit
    seed = torch.zeros_like(logits.value)
    for row, target in enumerate(TARGETS):
        seed[row, read, target] = logits.value[row, read, target]
    rule.spread(logits, seed)
    return first.relevance, positions.relevance.sum(2)


def close(a: Any, b: Tensor) -> bool:
    return bool(b.abs().max() > 1e-3) and bool((torch.as_tensor(a) - b).abs().max() <= 1e-8 * b.abs().max())


@pytest.mark.parametrize("preset", ["attn_lrp", "cp_lrp"])
@pytest.mark.parametrize(("family", "explicit", "read"), [("gpt2", gpt2, -1), ("bert", bert, 0)])
def test_texts(family: str, explicit: Any, read: int, preset: str) -> None:
    net, x = build(family), embeddings()
    with torch.no_grad():
        values, positions = relevance(explicit(net, x, preset), read)
    assert close(explain(net, x, TARGETS, preset=preset).values, values)
    found = explain(net, x, TARGETS, preset=preset, positions=True)
    assert close(found.parts["content"], values.sum(2)) and close(found.parts["position"], positions)
    absolute = explain(net, x, TARGETS, preset=preset, positions=True, position_aggregate="absolute")
    assert close(absolute.parts["position"], positions.abs())


@pytest.mark.parametrize("preset", ["attn_lrp", "cp_lrp"])
def test_pictures(preset: str) -> None:
    config = tr.ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=16,
        patch_size=8, num_labels=3,
    )  # fmt: skip
    net = seeded(tr.ViTForImageClassification._from_config(config, attn_implementation="sdpa")).requires_grad_(False)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    patches, positions = relevance(vit(net, pixels, preset), 0)
    values = patches.reshape(2, 2, 2, 3, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(pixels.shape)
    model = attrib.wrap(net)
    assert close(attrib.explain(model, pixels, attrib.LRP(preset=preset), TARGETS).values, values)
    found, absolute = (
        attrib.explain(
            model, pixels, attrib.LRP(preset=preset, positions=True, position_aggregate=how), TARGETS
        )  # the whole value path
        for how in ("signed", "absolute")
    )
    assert close(found.parts["content"], values) and close(found.parts["position"], positions)
    assert close(absolute.parts["position"], positions.abs())
