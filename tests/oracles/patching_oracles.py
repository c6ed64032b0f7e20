"""Small transformers with every site's place written down by hand, and patching one site and position at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import transformers as tr
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

import attrib
from attrib.models.text import TextModel

VOCABULARY = 40
CLEAN = torch.tensor([[5, 9, 17, 23, 8, 3, 30], [6, 9, 18, 23, 4, 3, 31]])  # 3 is the mask
CORRUPTED = torch.tensor([[5, 9, 21, 23, 8, 3, 30], [6, 11, 18, 23, 24, 3, 31]])
ANSWER = attrib.LogitDiff(12, 25)
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = SPECIAL | {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 32,
}
GPT2 = SPECIAL | {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 32}
GEMMA2 = {"num_key_value_heads": 2, "head_dim": 4, "query_pre_attn_scalar": 4, "attn_logit_softcapping": None}
GEMMA2 |= {"final_logit_softcapping": None}
CONFIGS: dict[str, Callable[..., Any]] = {
    "gpt2": lambda **more: tr.GPT2Config(**GPT2 | more),
    "llama": lambda **more: tr.LlamaConfig(**SIZES | {"num_key_value_heads": 2} | more),
    "neox": lambda **more: tr.GPTNeoXConfig(**SIZES | {"rotary_pct": 0.5} | more),
    "bert": lambda **more: tr.BertConfig(**SIZES | more),
    "gemma2": lambda **more: tr.Gemma2Config(**SIZES | GEMMA2 | more),
}
HEADS, HEAD_WIDTH, GROUPED = 4, 4, 2  # llama's query heads 0 and 1 share key-value head 0

# a reading of one layer: module, whether its input or output, and columns; "mid" is written by hand below
Spot = tuple[nn.Module, str, slice]
ALL = ("resid_*.*", "attn_out.*", "mlp_out.*", "head.*.*", "head.*.*.*", "neuron.*", "neuron.*.7", "embed")


def tokenizer() -> Any:
    vocabulary = {"[PAD]": 0, "[BOS]": 1, "[EOS]": 2, "[MASK]": 3} | {f"w{i}": i for i in range(4, VOCABULARY)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[PAD]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tr.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]", mask_token="[MASK]"
    )


def network(family: str, attention: str = "eager", seed: int = 1, **more: Any) -> nn.Module:
    """A seeded language model in float64 with weights that no initialiser flatters."""
    auto = tr.AutoModelForMaskedLM if family == "bert" else tr.AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = auto.from_config(CONFIGS[family](**more), attn_implementation=attention).double().eval()
        for parameter in module.parameters():
            noise = torch.randn_like(parameter)
            parameter.data = noise * 0.35 if parameter.dim() > 1 else parameter.data + noise * 0.1
    return module


def wrapped(module: nn.Module) -> TextModel:
    return attrib.wrap(module, tokenizer=tokenizer())


def linear(family: str, norm: Callable[[nn.Module], nn.Module] = lambda norm: nn.Identity()) -> nn.Module:
    """A model that is linear in every activation: no activation, attention that looks everywhere alike, no norms.

    norm: what stands in the place of each.
    """
    key = {"gpt2": "activation_function", "gemma2": "hidden_activation"}.get(family, "hidden_act")
    module: Any = network(family, **{key: "linear"})
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if type(child).__name__.endswith(("LayerNorm", "RMSNorm")):
                setattr(part, name, norm(child))
    for layer in range(2):
        if family == "gemma2":  # whose MLP is a product
            module.model.layers[layer].mlp = module.model.layers[layer].mlp.up_proj
            module.model.layers[layer].mlp.weight.data = module.model.layers[layer].mlp.weight.data[:16]
        for site in ("q", "k"):
            for head in range(GROUPED if family == "gemma2" and site == "k" else HEADS):
                projection, _, columns = spots(module, family, layer)[f"head.{layer}.{head}.{site}"]
                weight = projection.weight.data.T if isinstance(projection, nn.Linear) else projection.weight.data
                weight[:, columns] = 0
                if projection.bias is not None:
                    projection.bias.data[columns] = 0
    return module


def bias_free(module: nn.Module) -> nn.Module:
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    return module


def spots(module: Any, family: str, layer: int) -> dict[str, Spot]:
    """Site name → (module, "input" or "output", columns), as a reader of the modelling file would write them."""
    every = slice(None)
    block = {
        "gpt2": lambda: module.transformer.h,
        "llama": lambda: module.model.layers,
        "gemma2": lambda: module.model.layers,
        "neox": lambda: module.gpt_neox.layers,
        "bert": lambda: module.bert.encoder.layer,
    }[family]()[layer]
    found: dict[str, Spot] = {
        f"resid_pre.{layer}": (block, "input", every),
        f"resid_post.{layer}": (block, "output", every),
    }
    if family == "gpt2":
        out, down, added, mlp = block.attn.c_proj, block.mlp.c_proj, block.attn, block.mlp
        projections = {"q": (block.attn.c_attn, 0, 4), "k": (block.attn.c_attn, 16, 4), "v": (block.attn.c_attn, 32, 4)}
    elif family in ("llama", "gemma2"):
        own = block.self_attn
        out, down, added, mlp = own.o_proj, getattr(block.mlp, "down_proj", block.mlp), own, block.mlp
        if family == "gemma2":
            added, mlp = block.post_attention_layernorm, block.post_feedforward_layernorm
        projections = {"q": (own.q_proj, 0, 4), "k": (own.k_proj, 0, 4), "v": (own.v_proj, 0, 4)}
    elif family == "neox":
        own = block.attention
        out, down, added, mlp = own.dense, block.mlp.dense_4h_to_h, own, block.mlp
        projections = {name: (own.query_key_value, 4 * i, 12) for i, name in enumerate("qkv")}
    else:
        own = block.attention.self
        out, down, added, mlp = block.attention.output.dense, block.output.dense, block.attention.output.dense, None
        mlp = block.output.dense
        projections = {"q": (own.query, 0, 4), "k": (own.key, 0, 4), "v": (own.value, 0, 4)}
        found[f"resid_mid.{layer}"] = (block.attention, "output", every)
    found[f"attn_out.{layer}"] = (added, "output", every)
    found[f"mlp_out.{layer}"] = (mlp, "output", every)
    found[f"neuron.{layer}"] = (down, "input", every)
    found[f"neuron.{layer}.7"] = (down, "input", slice(7, 8))
    for head in range(HEADS):
        found[f"head.{layer}.{head}"] = (out, "input", slice(HEAD_WIDTH * head, HEAD_WIDTH * (head + 1)))
    for name, (projection, start, step) in projections.items():
        for head in range(GROUPED if family in ("llama", "gemma2") and name != "q" else HEADS):
            columns = slice(start + step * head, start + step * head + HEAD_WIDTH)
            found[f"head.{layer}.{head}.{name}"] = (projection, "output", columns)
    return found


def read(module: Any, spot: Spot, run: Callable[[], Any]) -> Tensor:
    """The spot's tensor in one run."""
    seen: list[Tensor] = []
    with hooked(spot, lambda tensor: seen.append(tensor.detach().clone())):
        run()
    return seen[0]


def hooked(spot: Spot, visit: Callable[[Tensor], Tensor | None]) -> Any:
    """While open, `visit` sees the spot's whole tensor, and what it returns takes its place."""
    part, side, _ = spot

    def behind(_: Any, args: Any, output: Any) -> Any:
        new = visit(output[0] if isinstance(output, tuple) else output)
        return None if new is None else ((new, *output[1:]) if isinstance(output, tuple) else new)

    def before(_: Any, args: Any) -> Any:
        new = visit(args[0])
        return None if new is None else (new, *args[1:])

    handle = part.register_forward_hook(behind) if side == "output" else part.register_forward_pre_hook(before)
    return _Closing(handle)


class _Closing:
    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        self.handle.remove()


def patched(
    module: Any, spot: Spot, ids: Tensor, clean: Tensor, position: int, metric: Callable[[Tensor], Tensor]
) -> Tensor:
    """The metric of the corrupted run with one site and position overwritten by its clean value: (batch,)."""
    columns = spot[2]

    def overwrite(tensor: Tensor) -> Tensor:
        new = tensor.clone()
        new[:, position, columns] = clean[:, position, columns]
        return new

    with torch.no_grad(), hooked(spot, overwrite):
        return metric(module(ids).logits)


def towards(module: Any, spot: Spot, ids: Tensor, clean: Tensor, metric: Callable[[Tensor], Tensor]) -> Tensor:
    """d metric/dt at t = 0, (batch, positions), of the tensor at each position moved by t·(clean − corrupted)."""
    columns = spot[2]
    step = torch.zeros(ids.shape, dtype=torch.float64, requires_grad=True)

    def move(tensor: Tensor) -> Tensor:
        difference = torch.zeros_like(tensor)
        difference[..., columns] = (clean - tensor.detach())[..., columns]
        return tensor + step[..., None] * difference

    with hooked(spot, move):
        scores = metric(module(ids).logits)
    return torch.autograd.grad(scores.sum(), step, allow_unused=True)[0]


def with_relp_rules(module: nn.Module) -> nn.Module:
    """A copy whose forward is the same and whose gradient is RelP's coefficient, by detaching inside each module."""
    ruled = copy.deepcopy(module)
    for part in ruled.modules():
        kind = type(part).__name__
        if isinstance(part, nn.LayerNorm):
            part.forward = _layer_norm(part)
        elif kind.endswith("RMSNorm"):
            part.forward = _rms_norm(part)
        elif kind in ("NewGELUActivation", "GELUActivation", "GELUTanh", "SiLUActivation", "SiLU", "GELU"):
            part.forward = _identity_rule(part.forward)
        elif kind in ("LlamaMLP", "Gemma2MLP"):
            part.forward = _gated(part)
    return ruled


def _layer_norm(norm: Any) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt().detach() * norm.weight + norm.bias

    return forward


def _rms_norm(norm: Any) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        single = x.float()  # as transformers does
        scale = (single.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt().detach()
        return norm.weight * (single * scale).to(x.dtype)

    return forward


def _identity_rule(act: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: x * (act(x) / x).detach()


def _gated(mlp: Any) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        product = mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
        return mlp.down_proj(product / 2 + (product / 2).detach())

    return forward


def explained(module, method, clean=CLEAN, corrupted=CORRUPTED, target=ANSWER, **options):
    return attrib.explain(wrapped(module), attrib.pair(clean, corrupted), method, target, **options)


def metric_of(family):
    place = 5 if family == "bert" else -1
    return lambda logits: logits[:, place, 12] - logits[:, place, 25]


def oracle(module, family, base, other, names):
    """(batch, site, position): the base run with each site and position of the other run, a forward for each."""
    metric = metric_of(family)
    found = torch.empty(len(base), len(names), base.shape[1], dtype=next(module.parameters()).dtype)
    with torch.no_grad():
        unpatched = metric(module(base).logits)
    for i, name in enumerate(names):
        spot = spots(module, family, int(name.split(".")[1]))[name]
        with torch.no_grad():
            value = read(module, spot, lambda: module(other))
        for position in range(base.shape[1]):
            found[:, i, position] = patched(module, spot, base, value, position, metric) - unpatched
    return found


def known(module, family):
    return [name for layer in range(2) for name in spots(module, family, layer)]


def replayed(result):
    """No note says that whole forwards were needed."""
    return not any("whole forward" in note for note in result.notes)
