"""Three families' forwards written out by hand, head by head, with every edge of the residual stream in reach."""

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
FAMILIES = ("gpt2", "llama", "neox")
# (sender, receiver, what the sender adds to the stream) → what the receiver sees of it
Edge = Callable[[str, str, Tensor], Tensor]


class Norm(nn.Module):
    """LLaMA's norm without its cast to float32, whose rounding would hide what is to be seen."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.eps, self.ruled = norm.weight, norm.variance_epsilon, False

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (x * (scale.detach() if self.ruled else scale))


def exact(family: str) -> Any:
    """A small model that computes in float64 throughout."""
    module = network(family, "sdpa")
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                setattr(part, name, Norm(child))
    return module


def ruled(module: Any) -> Any:
    """A copy whose gradient is RelP's coefficient."""
    copy = with_relp_rules(module)
    for part in copy.modules():
        if isinstance(part, Norm):
            part.ruled = True
    return copy


@dataclass
class Parts:
    """One block: its norms and MLP, and functions from a normed stream to q, k and v of one head."""

    first: Any
    second: Any
    mlp: Any
    q: Callable[[Tensor, int], Tensor]
    k: Callable[[Tensor, int], Tensor]
    v: Callable[[Tensor, int], Tensor]
    out: Tensor  # (heads · head_dim, width)
    bias: Tensor | float


def own(head: int) -> slice:
    return slice(HEAD_WIDTH * head, HEAD_WIDTH * (head + 1))


def parts(module: Any, family: str, layer: int) -> Parts:
    if family == "gpt2":
        b = module.transformer.h[layer]
        third = [lambda x, h, i=i: b.attn.c_attn(x)[..., 16 * i :][..., own(h)] for i in range(3)]
        return Parts(b.ln_1, b.ln_2, b.mlp, *third, b.attn.c_proj.weight, b.attn.c_proj.bias)
    if family == "llama":
        b = module.model.layers[layer]
        each = [
            lambda x, h, p=p: p(x)[..., own(h)] for p in (b.self_attn.q_proj, b.self_attn.k_proj, b.self_attn.v_proj)
        ]
        return Parts(b.input_layernorm, b.post_attention_layernorm, b.mlp, *each, b.self_attn.o_proj.weight.T, 0.0)
    b = module.gpt_neox.layers[layer]
    fused = b.attention.query_key_value
    each = [lambda x, h, i=i: fused(x)[..., 12 * h + 4 * i : 12 * h + 4 * i + 4] for i in range(3)]
    dense = b.attention.dense
    return Parts(b.input_layernorm, b.post_attention_layernorm, b.mlp, *each, dense.weight.T, dense.bias)


def embedded(module: Any, family: str, ids: Tensor) -> Tensor:
    x = module.get_input_embeddings()(ids)
    return x + module.transformer.wpe(torch.arange(ids.shape[1])) if family == "gpt2" else x


def rotated(module: Any, family: str, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """q, k: (batch, tokens, head_dim)."""
    if family == "gpt2":
        return q, k
    body, source = (module.model, modeling_llama) if family == "llama" else (module.gpt_neox, modeling_gpt_neox)
    cos, sin = body.rotary_emb(q, torch.arange(q.shape[1])[None])
    turned = source.apply_rotary_pos_emb(q[:, None], k[:, None], cos, sin)
    return turned[0][:, 0], turned[1][:, 0]


def head_of(module: Any, family: str) -> Callable[[Tensor], Tensor]:
    norm = {
        "gpt2": lambda: module.transformer.ln_f,
        "llama": lambda: module.model.norm,
        "neox": lambda: module.gpt_neox.final_layer_norm,
    }[family]()
    return lambda x: module.get_output_embeddings()(norm(x))


def run(module: Any, family: str, ids: Tensor, edge: Edge) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """(logits, what each sender adds, what each receiver reads), with every edge seen through `edge`."""
    added = {"embed": embedded(module, family, ids)}
    constants: list[Tensor | float] = []
    seen: dict[str, Tensor] = {}

    def read(receiver: str, senders: list[str], offsets: list[Tensor | float]) -> Tensor:
        total = sum(edge(sender, receiver, added[sender]) for sender in senders)
        seen[receiver] = total + sum(offsets)
        return seen[receiver]

    groups = GROUPED if family == "llama" else HEADS
    for layer in range(LAYERS):
        part, before, offsets = parts(module, family, layer), list(added), list(constants)
        project = {
            f"{h}.{kind}": getattr(part, kind)(part.first(read(f"head.{layer}.{h}.{kind}", before, offsets)), h)
            for kind in "qkv"
            for h in range(HEADS if kind == "q" else groups)
        }
        for head in range(HEADS):
            group = head // (HEADS // groups)
            q, k = rotated(module, family, project[f"{head}.q"], project[f"{group}.k"])
            scores = q @ k.transpose(-1, -2) / HEAD_WIDTH**0.5
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
            added[f"head.{layer}.{head}"] = weights @ project[f"{group}.v"] @ part.out[own(head)]
        constants.append(part.bias)
        reads = (before, offsets) if family == "neox" else (list(added), list(constants))
        added[f"mlp_out.{layer}"] = part.mlp(part.second(read(f"mlp_in.{layer}", *reads)))
    return head_of(module, family)(read("logits", list(added), constants)), added, seen


def whole(sender: str, receiver: str, value: Tensor) -> Tensor:
    return value
