"""Small transformers of many families, built from configs and seeded, and the stub that a Question needs of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as tr
from torch import Tensor, nn

from attrib.binding import BoundTarget
from attrib.methods.base import Finding, Question
from attrib.methods.lrp import LRP
from attrib.rules.shadow import shadow
from attrib.rules.weights import WeightCache

WIDTH, LAYERS, TOKENS = 32, 2, 6
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
COMMON = SPECIAL | {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 20,
    "max_position_embeddings": 32,
}
GROUPED = COMMON | {"num_key_value_heads": 2}
HEADED = GROUPED | {"head_dim": 8}
GPT2 = SPECIAL | {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "vocab_size": 20, "n_positions": 32}
BLOOM = SPECIAL | {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 4, "vocab_size": 20}
DISTIL = SPECIAL | {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 48, "vocab_size": 20}
T5 = SPECIAL | {"d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": LAYERS, "num_heads": 4, "vocab_size": 20}

DECODER, CLASSIFIER = tr.AutoModelForCausalLM, tr.AutoModelForSequenceClassification
FAMILIES: dict[str, tuple[Any, Callable[[], Any]]] = {
    "llama": (DECODER, lambda: tr.LlamaConfig(**GROUPED)),
    "qwen2": (DECODER, lambda: tr.Qwen2Config(**GROUPED)),
    "qwen3": (DECODER, lambda: tr.Qwen3Config(**HEADED)),
    "gemma2": (DECODER, lambda: tr.Gemma2Config(**HEADED)),
    "gemma3": (DECODER, lambda: tr.Gemma3TextConfig(**HEADED)),
    "mistral": (DECODER, lambda: tr.MistralConfig(**GROUPED, sliding_window=4)),
    "phi3": (DECODER, lambda: tr.Phi3Config(**GROUPED)),
    "gpt2": (DECODER, lambda: tr.GPT2Config(**GPT2)),
    "gpt_neox": (DECODER, lambda: tr.GPTNeoXConfig(rotary_pct=0.25, **COMMON)),
    "bloom": (DECODER, lambda: tr.BloomConfig(**BLOOM)),
    "bert": (CLASSIFIER, lambda: tr.BertConfig(**COMMON)),
    "roberta": (CLASSIFIER, lambda: tr.RobertaConfig(**COMMON)),
    "distilbert": (CLASSIFIER, lambda: tr.DistilBertConfig(**DISTIL)),
    "sinusoidal distilbert": (CLASSIFIER, lambda: tr.DistilBertConfig(sinusoidal_pos_embds=True, **DISTIL)),
    "t5 encoder": (None, lambda: tr.T5Config(feed_forward_proj="gated-gelu", **T5)),
}
EAGER_ONLY = {"gemma2", "bloom"}  # transformers itself offers no sdpa for these
BIAS_FREE = {"llama", "qwen3", "gemma2", "gemma3", "mistral", "phi3", "t5 encoder"}
ROTARY = {"llama", "qwen2", "qwen3", "gemma2", "gemma3", "mistral", "phi3", "gpt_neox"}
EXACT = {"gpt2", "bert", "roberta", "distilbert", "sinusoidal distilbert"}  # no cast to float32 inside


class EncoderWithHead(nn.Module):
    """A bare encoder, its mean over tokens, and a linear head."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(WIDTH, 4, bias=False)

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        hidden = self.encoder(inputs_embeds=inputs_embeds, attention_mask=attention_mask)[0]
        return self.head(hidden.mean(1))


def seeded(module: nn.Module, seed: int = 1) -> nn.Module:
    """The module in float64 and eval mode with weights that no initialiser flatters; vectors keep their ones."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.double().eval().parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = noise * 0.25 if parameter.dim() > 1 else parameter.data + noise * 0.1
    return module


def build(family: str, attention: str = "sdpa") -> nn.Module:
    """A seeded small model; skips where transformers has no such attention for the family."""
    if attention == "sdpa" and family in EAGER_ONLY:
        pytest.skip(f"transformers offers no sdpa for {family}")
    auto, config = FAMILIES[family]
    made = config()
    if auto is None:
        made._attn_implementation = attention
        return seeded(EncoderWithHead(tr.T5EncoderModel(made).encoder))
    return seeded(auto.from_config(made, attn_implementation=attention))


class Stub:
    """What a Question asks of a text model, without a tokenizer. last: the position whose logits are explained."""

    kind = "text"
    name = "stub"

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.weight_cache = WeightCache()
        self.measured_bytes: dict[Any, int] = {}

    def bounds(self) -> None:
        return None

    def forward(self, twin: nn.Module, x: Tensor, extra: dict[str, Tensor]) -> Tensor:
        output = twin(inputs_embeds=x, **extra)
        logits = output if isinstance(output, Tensor) else output.logits
        return logits[:, -1] if logits.dim() == 3 else logits


def embeddings(batch: int = 2, tokens: int = TOKENS, seed: int = 0) -> Tensor:
    return torch.randn(batch, tokens, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def explain(module: nn.Module, x: Tensor, targets: list[int], **settings: Any) -> Finding:
    """LRP of the module's logits; `extra` among the settings: what the module is given beside x."""
    extra = settings.pop("extra", {})
    strict = settings.pop("strict", True)
    target = BoundTarget("logit", positive=torch.tensor(targets))
    return LRP(**settings).explain(Question(Stub(module), shadow(module), x, target, strict=strict, extra=extra))  # type: ignore[arg-type]
