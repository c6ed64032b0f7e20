"""AttnLRP and CP-LRP against LXT 2.1 in float32, from arrays that make_lxt.py stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tr
from safetensors import safe_open
from tiny_transformers import explain
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import attrib

DATA = Path(__file__).parent / "data"
CASES = sorted(path.stem.removeprefix("lxt-") for path in DATA.glob("lxt-*.safetensors"))
TARGETS = [1, 1]


def stored(case: str) -> tuple[dict[str, Tensor], str, dict[str, Any]]:
    with safe_open(DATA / f"lxt-{case}.safetensors", "pt") as file:
        about = file.metadata()
        return {key: file.get_tensor(key) for key in file.keys()}, about["class"], json.loads(about["settings"])  # noqa: SIM118


def rebuilt(arrays: dict[str, Tensor], name: str, settings: dict[str, Any], attention: str) -> nn.Module:
    if not name:
        module: nn.Module = VisionTransformer(**settings)
    else:
        auto = tr.AutoModelForSequenceClassification if name == "Bert" else tr.AutoModelForCausalLM
        module = auto.from_config(getattr(tr, f"{name}Config")(**settings), attn_implementation=attention)
    weights = {key.removeprefix("weights."): value for key, value in arrays.items() if key.startswith("weights.")}
    module.load_state_dict(weights)
    return module.eval()


def test_every_family_is_there():
    families = {case.split("-")[0] for case in CASES}
    assert families == {"llama", "qwen2", "qwen3", "gpt2", "bert", "vit"}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", CASES)
def test_same_relevance(case: str, attention: str):
    arrays, name, settings = stored(case)
    module, preset = rebuilt(arrays, name, settings, attention), case.split("-")[1]
    if name:
        values = explain(module, arrays["x"], TARGETS, preset=preset).values
    else:
        values = attrib.explain(attrib.wrap(module), arrays["x"], attrib.LRP(preset=preset), TARGETS).values
    expected = arrays["relevance"]
    assert values.shape == expected.shape and expected.abs().max() > 1e-3
    assert (values - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_same_model(case: str):
    """The weights mean the same in our transformers as in LXT's."""
    arrays, name, settings = stored(case)
    module = rebuilt(arrays, name, settings, "sdpa")
    with torch.no_grad():
        logits = module(inputs_embeds=arrays["x"]).logits if name else module(arrays["x"])
    logits = logits[:, -1] if logits.dim() == 3 else logits
    torch.testing.assert_close(logits, arrays["logits"], rtol=1e-5, atol=1e-5)
