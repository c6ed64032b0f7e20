"""A tiny random model of any causal or masked language-model type of the installed transformers."""

from __future__ import annotations

from typing import Any, cast

import torch
import transformers
from tokenizers import Tokenizer, models
from torch import nn
from transformers import AutoConfig
from transformers.models.auto import modeling_auto

import attrib
from attrib.models.text import TextModel
from benchmarks.tiny_configurations import VOCABULARY, settings

CAUSAL: dict[str, Any] = dict(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
MASKED: dict[str, Any] = dict(modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
_SPECIAL = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_MOST_PARAMETERS = 20_000_000  # more are no tiny model: some size has a name that is in no table


def types() -> list[str]:
    """Every type by name, masked language models marked."""
    return sorted([*CAUSAL, *(f"{name} (masked)" for name in MASKED)])


def built(label: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The type's model (of a composed type, its text part), with seeded weights so large that every part matters."""
    name, table = (label.removesuffix(" (masked)"), MASKED if label.endswith("(masked)") else CAUSAL)
    default = AutoConfig.for_model(name)
    text = _text_part(default)
    kind = text.model_type if text is not default else name
    own = settings(label.replace(name, kind), text) | _SPECIAL
    if table is CAUSAL and "is_decoder" in text.to_dict():
        own["is_decoder"] = True
    config = AutoConfig.for_model(kind, **own)
    config._experts_implementation = "eager"  # the grouped one has no float64
    cls = getattr(transformers, table.get(kind, table[name]))
    _check_size(cls, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _drawn(_eager(cls, config).to(dtype).eval())


def _drawn(module: nn.Module) -> nn.Module:
    """The weights that models begin with are so small that nothing depends on anything."""
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, dtype=torch.float64).to(parameter)
        parameter.data = noise * 0.3 if parameter.dim() > 1 else parameter.data + noise * 0.1
    return module


def _eager(cls: Any, config: Any) -> Any:
    try:
        return cls._from_config(config, attn_implementation="eager")
    except ValueError:  # has no choice of attention
        return cls._from_config(config)


def _text_part(config: Any) -> Any:
    try:
        return config.get_text_config()
    except ValueError:  # has two: MusicGen's text encoder and decoder
        return config.get_text_config(decoder=True)


def _check_size(cls: Any, config: Any) -> None:
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in cls._from_config(config).parameters())
    if size > _MOST_PARAMETERS:
        raise ValueError(f"{size / 1e6:.0f} million parameters: its sizes have names that no table knows")


def wrapped(module: nn.Module) -> TextModel:
    """With a tokenizer of words that stand for their ids."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY - 1)}, unk_token="w0"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", mask_token="w3")
    return cast("TextModel", attrib.wrap(module, tokenizer=tokenizer))
