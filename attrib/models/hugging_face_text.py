"""Text models in the format of the transformers library: sequence classifiers, causal and masked language models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from attrib.errors import UnsupportedModel
from attrib.models.hubs import unavailable
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

    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
            loader = getattr(transformers, head)
            module = loader.from_pretrained(source, use_safetensors=True, dtype=torch.float32, **options)
    except OSError as error:
        raise unavailable(full_name, error) from error
    except (ValueError, KeyError, ImportError, TypeError) as error:
        raise UnsupportedModel(f"{full_name} is not a text model that can be loaded: {error}") from error
    module.eval().requires_grad_(False)
    return wrap_text(module, tokenizer, name=full_name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and advice of transformers, which mean nothing to who asked for an explanation."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
