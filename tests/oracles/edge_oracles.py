"""Five families' forwards written out by hand, head by head, with every edge of the residual stream in reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from patching_oracles import GROUPED, HEAD_WIDTH, HEADS, network, with_relp_rules
from torch import Tensor, nn
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.llama import modeling_llama

LAYERS = 2
FAMILIES = ("gpt2", "llama", "neox", "gemma2", "bert")
# (sender, receiver, what the sender adds to the stream) → what the receiver sees of it
Edge = Callable[[str, str, Tensor], Tensor]
# senders, their bias, the norm that their sum passes, and the one on the stream behind it
Step = tuple[list[str], Tensor | float, Any, Any]


def unchanged(x: Tensor) -> Tensor:
    return x


class Norm(nn.Module):
    """LLaMA's or Gemma's norm without its cast to float32, whose rounding would hide what is to be seen."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        llama = type(norm).__name__ == "LlamaRMSNorm"
        self.weight = norm.weight if llama else nn.Parameter(1 + norm.weight.data)
        self.eps, self.ruled = norm.variance_epsilon if llama else norm.eps, False

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (x * (scale.detach() if self.ruled else scale))


def exact(family: str) -> Any:
    """A small model that computes in float64 throughout."""
    module = network(family, "eager" if family == "gemma2" else "sdpa")
    module.config._attn_implementation = "sdpa"  # which Gemma2 offers not; eager attention has weights in float32
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if type(child).__name__ in ("LlamaRMSNorm", "Gemma2RMSNorm"):
                setattr(part, name, Norm(child))
    return module


def ruled(module: Any) -> Any:
    """A copy whose gradient is RelP's coefficient."""
    copy = with_relp_rules(module)
    for part in copy.modules():
        if isinstance(part, Norm):
            part.ruled = True
    return copy


class Weighted(nn.Module):
    """A block with learned weights for each column: attention is multiplied and shifted before it is added, the stream
    multiplied behind."""

    def __init__(self, block: Any, bend: Callable[[Tensor], Tensor] = unchanged) -> None:
        super().__init__()
        self.block, self.bend = block, bend
        for name, (first, last) in {"scale": (0.5, 1), "shift": (-0.2, 0.3), "keeps": (1.1, 0.7)}.items():
            setattr(self, name, nn.Parameter(torch.linspace(first, last, 16, dtype=torch.float64)))

    def forward(self, hidden_states, past_key_values=None, attention_mask=None, *others, **given):
        attended = self.block.attn(self.block.ln_1(hidden_states), attention_mask=attention_mask)[0]
        hidden_states = (hidden_states + (self.bend(attended) * self.scale + self.shift)) * self.keeps[None, None]
        return hidden_states + self.block.mlp(self.block.ln_2(hidden_states))


def weighted(module: Any, bend: Callable[[Tensor], Tensor] = unchanged) -> Any:
    """A GPT-2 whose blocks are `Weighted`."""
    module.transformer.h = nn.ModuleList(Weighted(block, bend) for block in module.transformer.h)
    return module


@dataclass
class Parts:
    """One block: its norms and MLP, and functions from a normed stream to q, k and v of one head.

    joining: the norm behind attention (Gemma2). mid, post: the norms on the stream (BERT).
    """

    first: Any
    second: Any
    mlp: Any
    q: Callable[[Tensor, int], Tensor]
    k: Callable[[Tensor, int], Tensor]
    v: Callable[[Tensor, int], Tensor]
    out: Tensor  # (heads · head_dim, width)
    bias: Tensor | float
    joining: Any = unchanged
    mid: Any = unchanged
    post: Any = unchanged


def own(head: int) -> slice:
    return slice(HEAD_WIDTH * head, HEAD_WIDTH * (head + 1))


def apart(*projections: Any) -> list[Callable[[Tensor, int], Tensor]]:
    return [lambda x, h, p=p: p(x)[..., own(h)] for p in projections]


def parts(module: Any, family: str, layer: int) -> Parts:
    if family == "gpt2":
        b = module.transformer.h[layer]
        by: dict[str, Any] = {}
        if isinstance(b, Weighted):
            by = {"joining": lambda x, w=b: x * w.scale + w.shift, "mid": lambda x, w=b: x * w.keeps}
            b = b.block
        third = [lambda x, h, i=i: b.attn.c_attn(x)[..., 16 * i :][..., own(h)] for i in range(3)]
        return Parts(b.ln_1, b.ln_2, b.mlp, *third, b.attn.c_proj.weight, b.attn.c_proj.bias, **by)
    if family in ("llama", "gemma2"):
        b = module.model.layers[layer]
        a, gemma = b.self_attn, family == "gemma2"
        second = b.pre_feedforward_layernorm if gemma else b.post_attention_layernorm
        mlp = (lambda x: b.post_feedforward_layernorm(b.mlp(x))) if gemma else b.mlp
        joining = b.post_attention_layernorm if gemma else unchanged
        each = apart(a.q_proj, a.k_proj, a.v_proj)
        return Parts(b.input_layernorm, second, mlp, *each, a.o_proj.weight.T, 0.0, joining=joining)
    if family == "bert":
        b = module.bert.encoder.layer[layer]
        a, out = b.attention.self, b.attention.output
        each, mlp = apart(a.query, a.key, a.value), lambda x: b.output.dense(b.intermediate(x))
        norms = {"mid": out.LayerNorm, "post": b.output.LayerNorm}
        return Parts(unchanged, unchanged, mlp, *each, out.dense.weight.T, out.dense.bias, **norms)
    b = module.gpt_neox.layers[layer]
    fused = b.attention.query_key_value
    each = [lambda x, h, i=i: fused(x)[..., 12 * h + 4 * i : 12 * h + 4 * i + 4] for i in range(3)]
    dense = b.attention.dense
    return Parts(b.input_layernorm, b.post_attention_layernorm, b.mlp, *each, dense.weight.T, dense.bias)


def embedded(module: Any, family: str, ids: Tensor) -> Tensor:
    if family == "bert":
        return module.bert.embeddings(ids)
    x = module.get_input_embeddings()(ids)
    return x + module.transformer.wpe(torch.arange(ids.shape[1])) if family == "gpt2" else x


def rotated(module: Any, family: str, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """q, k: (batch, tokens, head_dim)."""
    if family in ("gpt2", "bert"):
        return q, k
    body, source = (module.gpt_neox, modeling_gpt_neox) if family == "neox" else (module.model, modeling_llama)
    cos, sin = body.rotary_emb(q, torch.arange(q.shape[1])[None])
    turned = source.apply_rotary_pos_emb(q[:, None], k[:, None], cos, sin)
    return turned[0][:, 0], turned[1][:, 0]


def head_of(module: Any, family: str) -> Callable[[Tensor], Tensor]:
    if family == "bert":
        return module.cls
    norm = {
        "gpt2": lambda: module.transformer.ln_f,
        "llama": lambda: module.model.norm,
        "gemma2": lambda: module.model.norm,
        "neox": lambda: module.gpt_neox.final_layer_norm,
    }[family]()
    return lambda x: module.get_output_embeddings()(norm(x))


def run(module: Any, family: str, ids: Tensor, edge: Edge) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """(logits, what each sender adds, what each receiver reads), with every edge seen through `edge`.

    A receiver has a stream of its own, from the embeddings on: what it sees of each sender, and all norms on the way.
    """
    added = {"embed": embedded(module, family, ids)}
    steps: list[Step] = []
    seen: dict[str, Tensor] = {}

    def read(receiver: str, steps: list[Step]) -> Tensor:
        total = edge("embed", receiver, added["embed"])
        for senders, bias, joining, behind in steps:
            total = behind(total + joining(sum(edge(u, receiver, added[u]) for u in senders) + bias))
        seen[receiver] = total
        return total

    groups = GROUPED if family in ("llama", "gemma2") else HEADS
    for layer in range(LAYERS):
        part, before = parts(module, family, layer), list(steps)
        project = {
            f"{h}.{kind}": getattr(part, kind)(part.first(read(f"head.{layer}.{h}.{kind}", before)), h)
            for kind in "qkv"
            for h in range(HEADS if kind == "q" else groups)
        }
        for head in range(HEADS):
            group = head // (HEADS // groups)
            q, k = rotated(module, family, project[f"{head}.q"], project[f"{group}.k"])
            scores = q @ k.transpose(-1, -2) / HEAD_WIDTH**0.5
            if family != "bert":
                scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
            added[f"head.{layer}.{head}"] = scores.softmax(-1) @ project[f"{group}.v"] @ part.out[own(head)]
        steps.append(([f"head.{layer}.{head}" for head in range(HEADS)], part.bias, part.joining, part.mid))
        reads = before if family == "neox" else list(steps)
        added[f"mlp_out.{layer}"] = part.mlp(part.second(read(f"mlp_in.{layer}", reads)))
        steps.append(([f"mlp_out.{layer}"], 0.0, unchanged, part.post))
    return head_of(module, family)(read("logits", steps)), added, seen


def metric_of(family: str) -> Callable[[Tensor], Tensor]:
    """BERT is read at its mask."""
    place = 5 if family == "bert" else -1
    return lambda logits: logits[:, place, 12] - logits[:, place, 25]


def whole(sender: str, receiver: str, value: Tensor) -> Tensor:
    return value
