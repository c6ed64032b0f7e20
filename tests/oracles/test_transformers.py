"""AttnLRP and CP-LRP on every family, fused and eager attention: nothing uncovered, everything accounted for."""

from __future__ import annotations

import pytest
import torch
import transformers as tr
from tiny_transformers import (
    BIAS_FREE,
    EAGER_ONLY,
    EXACT,
    FAMILIES,
    build,
    embeddings,
    explain,
    seeded,
)
from torch import Tensor, nn
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig

import attrib

PRESETS = ["attn_lrp", "cp_lrp"]
TARGETS = [1, 0]


def tolerance(family: str) -> float:
    """Norms and rotary tables of most families cast to float32, whatever the model's type."""
    return 1e-10 if family in EXACT else 1e-5


def close(a: Tensor, b: Tensor, relative: float) -> bool:
    return bool((a - b).abs().max() <= relative * b.abs().max())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_is_covered_and_accounted_for(family, attention, preset):
    found = explain(build(family, attention), embeddings(), TARGETS, preset=preset)
    assert found.coverage.uncovered == {}
    assert found.values.isfinite().all() and found.values.abs().max() > 1e-3
    size = max(amounts.abs().max() for amounts in found.ledger.values())
    assert found.ledger["unaccounted"].abs().max() <= tolerance(family) * size
    assert ("softmax remainder" in found.ledger) == (preset == "attn_lrp")
    torch.testing.assert_close(torch.stack(list(found.ledger.values())).sum(0), found.score, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in EAGER_ONLY])
def test_fused_attention_is_the_eager_one(family, preset):
    fused, spelled = (explain(build(family, a), embeddings(), TARGETS, preset=preset) for a in ("sdpa", "eager"))
    assert close(fused.values, spelled.values, tolerance(family))
    # a bias inside fused attention (T5's relative positions) cannot be told from the softmax's remainder
    inside, reached = ({"softmax remainder", "bias"}, "input")
    for names in (inside, {reached}):
        ours, theirs = (sum(f.ledger[name] for name in names & f.ledger.keys()) for f in (fused, spelled))
        torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", sorted(BIAS_FREE))
def test_cp_conserves_without_biases(family):
    found = explain(build(family, "eager"), embeddings(), TARGETS, preset="cp_lrp")
    assert close(found.values.sum((1, 2)), found.score, 1e-5)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "llama", "gemma2", "gpt2", "bloom", "gpt_neox"])
def test_padding_changes_nothing_and_gets_nothing(family, attention, preset):
    """A row padded beside a longer one is explained as it is alone; decoders are padded on the left.

    Those in float32: transformers' eager softmax takes float64's lowest number, its mask, for minus infinity.
    """
    number = torch.float64 if family in EXACT else torch.float32
    module, x = build(family, attention).to(number), embeddings().to(number)
    left = family in {"llama", "gemma2", "gpt2", "bloom", "gpt_neox"}
    real = slice(2, None) if left else slice(None, -2)
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, :2] = 0
    mask = mask if left else mask.flip(1)
    extra = {"attention_mask": mask}
    if left and family != "bloom":
        extra["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
    if family == "roberta":  # reads its positions from the ids, and has none here
        extra["position_ids"] = torch.arange(2, 8).expand(2, 6)
    together = explain(module, x, TARGETS, preset=preset, extra=extra)
    alone_extra = {name: value[1:, real] for name, value in extra.items()}
    alone = explain(module, x[1:, real], TARGETS[1:], preset=preset, extra=alone_extra)
    assert close(together.values[1:, real], alone.values, tolerance(family))
    assert together.values[1, :2].abs().max() == 0 if left else together.values[1, -2:].abs().max() == 0
    first = explain(module, x[:1], TARGETS[:1], preset=preset)
    if family != "roberta":
        assert close(together.values[:1], first.values, tolerance(family))


VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 16,
    "patch_size": 8,
    "num_labels": 3,
}


def image_classifier(name: str, attention: str) -> nn.Module:
    made = {
        "vit": lambda: tr.ViTForImageClassification(config(tr.ViTConfig, attention)),
        "deit": lambda: tr.DeiTForImageClassification(config(tr.DeiTConfig, attention)),
        "dinov2": lambda: tr.Dinov2ForImageClassification(config(tr.Dinov2Config, attention, mlp_ratio=2)),
        "beit": lambda: tr.BeitForImageClassification(config(tr.BeitConfig, attention)),
    }[name]()
    return seeded(made)


def config(kind, attention: str, **more):
    made = kind(**VISION, **more)
    made._attn_implementation = attention
    return made


def picture() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def accounted(result: attrib.Attribution, relative: float) -> None:
    assert result.coverage.uncovered == {}
    size = max(amounts.abs().max() for amounts in result.ledger.values())
    assert result.ledger["unaccounted"].abs().max() <= relative * size
    assert result.values.abs().max() > 1e-4


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["vit", "deit", "dinov2", "beit"])
def test_image_classifiers_of_transformers(name, preset):
    results = []
    for attention in ("sdpa", "eager"):
        model = attrib.wrap(image_classifier(name, attention))
        results.append(attrib.explain(model, picture(), attrib.LRP(preset=preset), TARGETS, strict=True))
        accounted(results[-1], 1e-6)
    assert close(results[0].values, results[1].values, 1e-6)


BLOCKS = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]
TORCHVISION = {
    "vit": lambda: VisionTransformer(16, 8, 2, 4, 32, 48, num_classes=3),
    "swin": lambda: SwinTransformer([2, 2], 16, [2, 2], [2, 2], [2, 2], num_classes=3),
    "convnext": lambda: ConvNeXt(BLOCKS, num_classes=3),
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_transformers(name, preset):
    torch.manual_seed(0)
    model = attrib.wrap(seeded(TORCHVISION[name]()))
    accounted(attrib.explain(model, picture(), attrib.LRP(preset=preset), TARGETS, strict=True), 1e-10)


class Batched(nn.Module):
    """nn.MultiheadAttention as people write it, with a padding mask, around a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, inputs_embeds: Tensor, padding: Tensor) -> Tensor:
        attended, _ = self.attention(inputs_embeds, inputs_embeds, inputs_embeds, key_padding_mask=padding)
        return self.head((inputs_embeds + attended)[:, 0])


@pytest.mark.parametrize("preset", PRESETS)
def test_multi_head_attention_with_a_padding_mask(preset):
    module, x = seeded(Batched()), embeddings()
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    found = explain(module, x, TARGETS, preset=preset, extra={"padding": padding})
    alone = explain(module, x[1:, :4], TARGETS[1:], preset=preset, extra={"padding": padding[1:, :4]})
    assert close(found.values[1:, :4], alone.values, 1e-12)
    assert found.values[1, 4:].abs().max() == 0
    assert found.ledger["unaccounted"].abs().max() < 1e-12


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_a_scripted_transformer_is_refused():
    scripted = torch.jit.trace(seeded(TORCHVISION["vit"]()), picture(), check_trace=False)
    with pytest.raises(attrib.OpaqueModel, match="TorchScript"):
        attrib.wrap(scripted)
