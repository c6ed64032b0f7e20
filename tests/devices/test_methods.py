"""Every method on a device finds what it finds on the CPU: nothing is made, left or looked for on the wrong side."""

from __future__ import annotations

import pytest
import torch
from contract_nets import (
    METHOD_NAMES,
    PAIR_METHODS,
    Functional,
    InPlace,
    Modules,
    cheap,
    language_model,
    pictures,
    prompts,
)
from contract_nets import model as image_model
from machine import device
from moved import KINDS, TEXTS, assert_same, on, text_model
from torch import Tensor, nn
from zennit.composites import EpsilonPlusFlat

import attrib
from attrib.models import checkpointed

TEXT_METHODS = [name for name, cls in attrib.METHODS.items() if "text" in cls.applies_to]
BERT, GPT2, LLAMA = ("bert", "classification", "sdpa"), ("gpt2", "next_token", "eager"), ("llama", "next_token", "sdpa")
MORE_ON_IMAGES = [
    *[attrib.LRP(preset=preset) for preset in ("epsilon", "epsilon_gamma_box", "epsilon_alpha2_beta1_flat")],
    attrib.LRP(composite=EpsilonPlusFlat()),
    attrib.IntegratedGradients(n_steps=4, tolerance=0.01),
    attrib.IntegratedGradients(n_steps=4, baseline="blur"),
    attrib.IntegratedGradients(n_steps=4, baseline="noise"),
    attrib.NormGrad(layers=("conv", "block"), meta_lr=1e-3),
    attrib.ExcitationPullback(steps=2),
]
MORE_ON_TEXTS = [
    attrib.LRP(preset="attn_lrp", positions=True),
    attrib.LRP(preset="cp_lrp"),
    attrib.IntegratedGradients(n_steps=4, tolerance=0.05),
]
TARGETS = [None, [2, 0, 1], attrib.LogitDiff(0, 3), attrib.LogProb(2), lambda outputs: outputs[:, 1]]
everywhere = pytest.mark.parametrize("kind", KINDS)
# refuses all that CUDA refuses, and float64
strictest = pytest.mark.parametrize("kind", ["mps"])


class Recurrent(nn.Module):
    """A picture read row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(48, 6, 2, batch_first=True, dropout=0.5, bidirectional=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])


def compared(here, inputs, method, kind, target=None, close=1e-5):
    expected = attrib.explain(here, inputs, method, target)
    with device(kind, **KINDS[kind]):
        there = on(here, kind)
        assert_same(attrib.explain(there, inputs, method, target), expected, kind, close)


@pytest.mark.parametrize("name", METHOD_NAMES)
@everywhere
def test_on_images(name, kind):
    compared(image_model(InPlace, torch.float32), pictures(3, torch.float32), cheap(name), kind)


@pytest.mark.parametrize("method", MORE_ON_IMAGES, ids=lambda method: method.name)
@strictest
def test_settings_on_images(method, kind):
    compared(image_model(Functional, torch.float32), pictures(2, torch.float32), method, kind, 1, 1e-4)


@pytest.mark.parametrize("target", TARGETS, ids=[str(t) if not callable(t) else "function" for t in TARGETS])
@everywhere
def test_targets(target, kind):
    compared(image_model(Modules, torch.float32), pictures(3, torch.float32), "lrp", kind, target)


@everywhere
def test_inputs_that_are_there_already(kind):
    here, x = image_model(Modules, torch.float32), pictures(3, torch.float32)
    expected = attrib.explain(here, x, "lrp")
    with device(kind, **KINDS[kind]):
        found = attrib.explain(on(here, kind), x.to(f"{kind}:0"), "lrp")
        assert_same(found, expected, kind)
        assert found.provenance.weights_hash == expected.provenance.weights_hash
        assert found.provenance.input_hashes == expected.provenance.input_hashes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["lrp", "deeplift", "excitation_pullback"])
@strictest
def test_half_precision(name, dtype, kind):
    compared(image_model(Modules, dtype), pictures(2, dtype), cheap(name), kind, 1, 0.1)


@pytest.mark.parametrize("name", ["saliency", "lrp", "occlusion"])
@everywhere
def test_recurrent_layers(name, kind):
    torch.manual_seed(0)
    here = attrib.wrap(Recurrent().eval())
    compared(here, pictures(2, torch.float32), cheap(name), kind, 1)
    assert not here.module.cells.training and here.module.cells.dropout == 0.5


@pytest.mark.parametrize("reader", [BERT, GPT2, LLAMA], ids=lambda reader: reader[0])
@everywhere
def test_on_texts(reader, kind):
    here = text_model(*reader)
    methods = [*(cheap(name) for name in TEXT_METHODS), *MORE_ON_TEXTS]
    expected = [attrib.explain(here, TEXTS, method) for method in methods]
    with device(kind, **KINDS[kind]):
        there = on(here, kind)
        assert there.predict(TEXTS)[0][0].index == here.predict(TEXTS)[0][0].index
        for method, known in zip(methods, expected, strict=True):
            assert_same(attrib.explain(there, TEXTS, method), known, kind, 1e-3)


@strictest
def test_blocks_that_run_again(kind):
    here, methods = text_model(*GPT2), (attrib.Saliency(), attrib.LRP(preset="attn_lrp", positions=True))
    expected = [attrib.explain(here, TEXTS, method) for method in methods]
    with device(kind, **KINDS[kind]):
        there = checkpointed(on(here, kind))
        for method, known in zip(methods, expected, strict=True):
            assert_same(attrib.explain(there, TEXTS, method), known, kind, 1e-3)


@everywhere
def test_alibi(kind):
    method = attrib.LRP(preset="attn_lrp", positions=True)
    compared(text_model("bloom", "next_token"), TEXTS[:1], method, kind, None, 1e-3)


@pytest.mark.parametrize("name", PAIR_METHODS)
@strictest
def test_on_pairs(name, kind):
    compared(language_model(torch.float32), prompts(), attrib.METHODS[name](), kind, None, 1e-3)


@pytest.mark.parametrize("method", [attrib.RelP(edges=True), attrib.AttributionPatching(edges=True)])
@strictest
def test_edges(method, kind):
    compared(language_model(torch.float32), prompts(), method, kind, None, 1e-3)
