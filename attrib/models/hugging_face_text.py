"""Text models in the format of the transformers library: sequence classifiers, causal and masked language models."""

from __future__ import annotations

from typing import Any

from attrib.models.hugging_face_weights import reading, with_weights
from attrib.models.text import TextModel, wrap_text

# what the name of an architecture ends with → the class that loads it
_HEADS = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
}


def head_of(config: Any) -> str | None:
    """The name of the transformers class that loads a text model with this config; None when it is none."""
    for architecture in getattr(config, "architectures", None) or ():
        for ending, loader in _HEADS.items():
            if str(architecture).endswith(ending):
                return loader
    return None


def load_text(source: str, head: str, *, local: bool, full_name: str) -> TextModel:
    """The model in the folder or hub repository `source`, in float32. Only safetensors, never custom code."""
    import torch
    import transformers

    with reading(full_name, "a text model"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=local, trust_remote_code=False)
        loader = getattr(transformers, head)
        module = with_weights(loader, source, full_name, local_files_only=local, dtype=torch.float32)
    return wrap_text(module, tokenizer, name=full_name)
