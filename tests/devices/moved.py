"""Models and results on a pretended device, beside the same on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import text_families
import torch
from contract_nets import worst

import attrib

KINDS = {"cuda": {}, "mps": {"float64": False}}
TOKENIZERS = {
    "bert": text_families.word_piece,
    "gpt2": text_families.byte_level,
    "llama": text_families.metaspace,
    "bloom": text_families.byte_level,
}
TEXTS = ["The film was not good at all", "the music was wonderful but the film was bad"]


def text_model(family: str, head: str, attention: str | None = None) -> Any:
    return attrib.wrap(text_families.model(family, head, attention), tokenizer=TOKENIZERS[family]())


def on(model: Any, kind: str) -> Any:
    """The model, wrapped anew, on the device."""
    module = copy.deepcopy(model.module).to(f"{kind}:0")
    assert {t.device.type for t in (*module.parameters(), *module.buffers())} == {kind}
    return attrib.wrap(module, tokenizer=model.tokenizer) if model.kind == "text" else attrib.wrap(module)


def assert_same(there: attrib.Attribution, here: attrib.Attribution, kind: str, close: float = 1e-5) -> None:
    """The result on the device says so, and holds the CPU's numbers up to rounding."""
    assert there.values.device.type == kind and there.provenance.device == f"{kind}:0"
    assert torch.equal(there.values.isnan().cpu(), here.values.isnan())
    assert worst(there.values.cpu().nan_to_num(), here.values.nan_to_num()) < close
    assert worst(there.score.cpu(), here.score) < close
    assert there.target == here.target and there.coverage == here.coverage
    assert (there.ledger or {}).keys() == (here.ledger or {}).keys()
    for name, amounts in (here.ledger or {}).items():
        assert (there.ledger[name].cpu() - amounts).abs().max() < close * max(1.0, float(here.score.abs().max())), name
    for name, part in (here.parts or {}).items():
        assert worst(there.parts[name].cpu().nan_to_num(), part.nan_to_num()) < 10 * close, name
