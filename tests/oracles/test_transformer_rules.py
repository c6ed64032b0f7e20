"""Our tables against explicit rules in relevance form, in float64, on blocks like LLaMA's and BERT's."""

from __future__ import annotations

import explicit_rules as rule
import pytest
import torch
import torch.nn.functional as F
from explicit_rules import Node
from tiny_transformers import WIDTH, embeddings, explain, seeded
from torch import Tensor, nn

TARGETS = [1, 0]
HEADS, TOKENS = 4, 6
SIZE = WIDTH // HEADS
CAUSAL = torch.full((TOKENS, TOKENS), float("-inf"), dtype=torch.float64).triu(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos[:, None] + torch.cat((-x[..., half:], x[..., :half]), -1) * sin[:, None]


def rotary() -> tuple[Tensor, Tensor]:
    angles = torch.outer(torch.arange(TOKENS), 0.3 ** torch.arange(SIZE // 2)).double().repeat(1, 2)[None]
    return angles.cos(), angles.sin()


class GroupedAttention(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.q, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(WIDTH, WIDTH // 2, bias=False) for _ in range(2))

    def forward(self, x: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = (f(x).view(*x.shape[:2], -1, SIZE).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = rotate(q, *position_embeddings), rotate(k, *position_embeddings)
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            mixed = torch.softmax(q @ k.mT * SIZE**-0.5 + CAUSAL, -1) @ v
        return self.o(mixed.transpose(1, 2).flatten(2))


class RMS(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class LlamaLike(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(GroupedAttention(fused) for _ in range(2))
        self.norms = nn.ModuleList(RMS() for _ in range(5))
        self.mlps = nn.ModuleList(
            nn.ModuleList(nn.Linear(*shape, bias=False) for shape in [(WIDTH, 48), (WIDTH, 48), (48, WIDTH)])
            for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, 5, bias=False)

    def forward(self, inputs_embeds: Tensor) -> Tensor:
        x = inputs_embeds
        for i, (attention, (gate, up, down)) in enumerate(zip(self.attentions, self.mlps, strict=True)):
            x = x + attention(self.norms[2 * i](x), position_embeddings=rotary())
            y = self.norms[2 * i + 1](x)
            x = x + down(F.silu(gate(y)) * up(y))
        return self.head(self.norms[4](x)[:, -1])


def llama_explicitly(net: LlamaLike, x: Tensor, preset: str, positions: bool) -> tuple[Node, list[Node], Node]:
    tape: list[Node] = []
    first = state = Node(tape, x)
    share, sources = 0.5 if positions else 1.0, []
    for i, (attention, (gate, up, down)) in enumerate(zip(net.attentions, net.mlps, strict=True)):
        cos, sin = (Node(tape, part.expand(len(x), -1, -1)) for part in rotary())
        sources += [cos, sin]
        y = rule.passed(state, net.norms[2 * i](state.value))
        q = rule.rotated(rule.heads(rule.linear(y, attention.q.weight), 4), cos, sin, share)
        k = rule.rotated(rule.heads(rule.linear(y, attention.k.weight), 2, 2), cos, sin, share)
        v = rule.heads(rule.linear(y, attention.v.weight), 2, 2)
        mixed = rule.joined(rule.attention(q, k, v, CAUSAL, preset))
        state = rule.add(state, rule.linear(mixed, attention.o.weight))
        y = rule.passed(state, net.norms[2 * i + 1](state.value))
        opened = rule.linear(y, gate.weight)
        opened = rule.passed(opened, F.silu(opened.value))
        gated = rule.product(opened, rule.linear(y, up.weight), 0.5 if preset == "attn_lrp" else 0.0)
        state = rule.add(state, rule.linear(gated, down.weight))
    return first, sources, rule.linear(rule.passed(state, net.norms[4](state.value)), net.head.weight)


class BertLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(TOKENS, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(5))
        self.qkvo = nn.ModuleList(nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4)) for _ in range(2))
        self.mlps = nn.ModuleList(nn.ModuleList([nn.Linear(WIDTH, 48), nn.Linear(48, WIDTH)]) for _ in range(2))
        self.pool, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, inputs_embeds: Tensor) -> Tensor:
        x = self.norms[4](inputs_embeds + self.position_embeddings(torch.arange(TOKENS)))
        for i, ((q, k, v, o), (up, down)) in enumerate(zip(self.qkvo, self.mlps, strict=True)):
            q, k, v = (f(x).view(*x.shape[:2], HEADS, SIZE).transpose(1, 2) for f in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v)
            x = self.norms[2 * i](x + o(mixed.transpose(1, 2).reshape(x.shape)))
            x = self.norms[2 * i + 1](x + down(F.gelu(up(x))))
        return self.head(torch.tanh(self.pool(x[:, 0])))


def bert_explicitly(net: BertLike, x: Tensor, preset: str) -> tuple[Node, Node, Node]:
    def normed(node: Node, i: int) -> Node:
        return rule.layer_norm(node, net.norms[i].weight, net.norms[i].bias, net.norms[i].eps)

    def through(node: Node, layer: nn.Linear) -> Node:
        return rule.linear(node, layer.weight, layer.bias)

    tape: list[Node] = []
    first = Node(tape, x)
    positions = Node(tape, net.position_embeddings.weight.expand_as(x))
    state = normed(rule.add(first, positions), 4)
    for i, (attention, (up, down)) in enumerate(zip(net.qkvo, net.mlps, strict=True)):
        q, k, v = (rule.heads(through(state, layer), HEADS) for layer in attention[:3])
        mixed = rule.joined(rule.attention(q, k, v, torch.zeros(TOKENS, TOKENS).double(), preset))
        state = normed(rule.add(state, through(mixed, attention[3])), 2 * i)
        opened = through(state, up)
        opened = rule.passed(opened, F.gelu(opened.value))
        state = normed(rule.add(state, through(opened, down)), 2 * i + 1)
    pooled = through(state, net.pool)
    return first, positions, through(rule.passed(pooled, pooled.value.tanh()), net.head)


def seed(logits: Node, last: int | None) -> Tensor:
    """The targets' logits at the token that is read, and nothing elsewhere."""
    relevance = torch.zeros_like(logits.value)
    for row, target in enumerate(TARGETS):
        relevance[row, last, target] = logits.value[row, last, target]
    return relevance


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-8 * b.abs().max())


@torch.no_grad()
def explicit_llama(net: LlamaLike, x: Tensor, preset: str, positions: bool) -> tuple[Tensor, list[Tensor]]:
    first, sources, logits = llama_explicitly(net, x, preset, positions)
    rule.spread(logits, seed(logits, -1))
    return first.relevance, [source.relevance for source in sources]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("preset", ["attn_lrp", "cp_lrp"])
def test_llama_like(preset, fused):
    net, x = seeded(LlamaLike(fused)), embeddings()
    expected, _ = explicit_llama(net, x, preset, positions=False)
    assert close(explain(net, x, TARGETS, preset=preset).values, expected)


@pytest.mark.parametrize("fused", [False, True])
def test_llama_like_with_positions(fused):
    net, x = seeded(LlamaLike(fused)), embeddings()
    expected, sources = explicit_llama(net, x, "attn_lrp", positions=True)
    found = explain(net, x, TARGETS, preset="attn_lrp", positions=True)
    assert close(found.parts["content"], expected.sum(2))
    layers = torch.stack([cos.sum(2) + sin.sum(2) for cos, sin in zip(sources[::2], sources[1::2], strict=True)], 1)
    assert layers.abs().max() > 1e-3 and close(found.parts["position_by_layer"], layers)
    sizes = sum(part.sum(2).abs() for part in sources)
    absolute = explain(net, x, TARGETS, preset="attn_lrp", positions=True, position_aggregate="absolute")
    assert close(absolute.parts["position"], sizes)


@pytest.mark.parametrize("preset", ["attn_lrp", "cp_lrp"])
def test_bert_like(preset):
    net, x = seeded(BertLike()), embeddings()
    with torch.no_grad():
        first, positions, logits = bert_explicitly(net, x, preset)
        rule.spread(logits, seed(logits, 0))
    assert close(explain(net, x, TARGETS, preset=preset).values, first.relevance)
    found = explain(net, x, TARGETS, preset=preset, positions=True)
    assert close(found.parts["content"], first.relevance.sum(2))
    assert close(found.parts["position"], positions.relevance.sum(2))
