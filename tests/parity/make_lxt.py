"""Makes data/lxt-*.safetensors, what LXT 2.1 says about small models, which test_lxt.py compares ours with.

LXT 2.1 imports names that newer transformers do not have, and it patches classes for the whole process, so it runs
here with its own transformers (4.52), each case in a process of its own:

    pip install --target OLD --no-deps transformers==4.52.4 "huggingface_hub<1" "tokenizers<0.22" lxt==2.1
    python tests/parity/make_lxt.py OLD

A file holds the weights, the input (embeddings, or pixels), the logits and the relevance of every input value;
its metadata say how the model is built.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 12,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": 12,
    "n_positions": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
VIT = {
    "image_size": 8,
    "patch_size": 4,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 16,
    "mlp_dim": 24,
    "num_classes": 5,
}
CASES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    # name: (module of LXT, preset in it, class, settings)
    "llama-attn_lrp": ("llama", "attnLRP", "Llama", GROUPED),
    "llama-cp_lrp": ("llama", "cp_LRP", "Llama", GROUPED),
    "qwen2-attn_lrp": ("qwen2", "attnLRP", "Qwen2", GROUPED),
    "qwen2-cp_lrp": ("qwen2", "cp_LRP", "Qwen2", GROUPED),
    "qwen3-attn_lrp": ("qwen3", "attnLRP", "Qwen3", GROUPED | {"head_dim": 4}),
    "qwen3-cp_lrp": ("qwen3", "cp_LRP", "Qwen3", GROUPED | {"head_dim": 4}),
    "gpt2-attn_lrp": ("gpt2", "attnLRP", "GPT2", GPT2),
    "gpt2-cp_lrp": ("gpt2", "cp_LRP", "GPT2", GPT2),
    "bert-attn_lrp": ("bert", "attnLRP", "Bert", SIZES),
    "vit-cp_lrp": ("vit_torch", "cp_LRP", "", VIT),
}
TARGET = 1


def make(case: str) -> None:
    """Explain the seeded model of `case` with LXT, and write its file."""
    warnings.simplefilter("ignore")
    import torch
    from lxt.efficient import monkey_patch
    from safetensors.torch import save_file

    family, preset, name, settings = CASES[case]
    patches = importlib.import_module(f"lxt.efficient.models.{family}")
    patched = patches.vision_transformer if family == "vit_torch" else getattr(patches, f"modeling_{family}")
    monkey_patch(patched, getattr(patches, preset))
    torch.manual_seed(0)
    model = _vit(settings) if family == "vit_torch" else _language_model(patched, name, settings)
    for parameter in model.eval().parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, 0.3)
        else:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    x = torch.randn(2, 3, 8, 8) if family == "vit_torch" else torch.randn(2, 5, 16)
    x.requires_grad_()
    logits = model(x) if family == "vit_torch" else model(inputs_embeds=x).logits
    logits = logits[:, -1] if logits.dim() == 3 else logits
    logits[:, TARGET].sum().backward()
    arrays = {f"weights.{key}": value.detach().clone() for key, value in model.state_dict().items()}
    arrays |= {"x": x.detach(), "logits": logits.detach().contiguous(), "relevance": (x * x.grad).detach()}
    about = {"class": name, "settings": json.dumps(settings), "lxt": "2.1", "torch": torch.__version__}
    save_file(arrays, DATA / f"lxt-{case}.safetensors", about)


def _vit(settings: dict[str, Any]) -> Any:
    from torchvision.models import VisionTransformer

    return VisionTransformer(**settings)


def _language_model(module: Any, name: str, settings: dict[str, Any]) -> Any:
    import transformers

    config = getattr(transformers, f"{name}Config")(**settings)
    config._attn_implementation = "eager"
    kind = {"Bert": "BertForSequenceClassification", "GPT2": "GPT2LMHeadModel"}.get(name, f"{name}ForCausalLM")
    return getattr(module, kind)(config)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        sys.path.insert(0, sys.argv[1])
        make(sys.argv[2])
    else:
        DATA.mkdir(exist_ok=True)
        for case in CASES:
            subprocess.run([sys.executable, __file__, sys.argv[1], case], check=True)
