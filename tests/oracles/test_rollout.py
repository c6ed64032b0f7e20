"""Attention rollout against weights that the models hand out, and fused attention that is opened for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from text_subjects import FAMILIES, LONG, NAMES, SHORT, cheap, model, question
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import ViTConfig, ViTForImageClassification

import attrib
from attrib.errors import NotApplicable
from attrib.rules.opened import OpenedAttention
from attrib.rules.shadow import shadow


@pytest.mark.parametrize("family", FAMILIES)
def test_rollout_of_the_weights_that_the_model_hands_out(family):
    eager, text = model(family, "eager"), LONG
    q = question(eager, text)
    x = q.x.clone().requires_grad_()
    output = shadow(eager.module)(inputs_embeds=x, output_attentions=True)
    explained = output.logits[:, 1] if family == "bert" else output.logits[:, -1, 1]
    row = 0 if family == "bert" else -1
    gradients = torch.autograd.grad(explained.sum(), output.attentions)
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    plain, helpful = eye, eye
    for attention, gradient in zip(output.attentions, gradients, strict=True):
        mixed = attention[0].mean(0) + eye
        plain = mixed / mixed.sum(1, keepdim=True) @ plain
        helpful = (eye + (attention * gradient)[0].clamp_min(0).mean(0)) @ helpful
    near = {"rtol": 1e-4, "atol": 1e-6}  # LLaMA's eager softmax is in float32
    for attention in ("eager", "sdpa"):
        subject = model(family, attention)
        rolled = attrib.explain(subject, text, "attention_rollout", 1)
        torch.testing.assert_close(rolled.values[0], plain[row].detach().double(), **near)
        weighted = attrib.explain(subject, text, "gradient_attention_rollout", 1)
        torch.testing.assert_close(weighted.values[0], (helpful - eye)[row].detach().double(), **near)
        assert any("opened" in note for note in weighted.notes) == (attention == "sdpa")


@pytest.mark.parametrize("name", ["attention_rollout", "gradient_attention_rollout"])
@pytest.mark.parametrize("kind", ["transformers", "torchvision"])
def test_rollout_of_a_vision_transformer_is_a_grid(kind, name):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    if kind == "transformers":
        net: nn.Module = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **sizes)).eval()
    else:
        net = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 16, num_classes=3).eval()
        nn.init.normal_(net.heads.head.weight)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    result = attrib.explain(attrib.wrap(net), torch.randn(2, 3, 32, 32), name, 1)
    assert result.kind == "layer"
    assert result.values.shape == (2, 4, 4)
    assert (result.values >= 0).all()
    assert (result.values > 0).any()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert torch._C._len_torch_function_stack() == 0


def test_rollout_needs_attention():
    net = attrib.wrap(nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(NotApplicable, match="no attention"):
        attrib.explain(net, torch.randn(1, 3, 8, 8), "attention_rollout")


class Fused(TorchFunctionMode):
    """Counts the fused attention that really runs."""

    runs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.runs += func is nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_who_opens_attention_says_so(name, family):
    subject = model(family, "sdpa")
    with Fused() as fused:
        result = attrib.explain(subject, SHORT, cheap(name), 1)
    assert any("opened" in note for note in result.notes) == (fused.runs == 0)


@pytest.mark.parametrize("how", ["plain", "causal", "boolean", "additive", "grouped"])
def test_opened_attention_is_fused_attention(how):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 5, 3, dtype=torch.float64) for _ in range(3))
    settings: dict[str, Any] = {
        "plain": {"scale": 0.3},
        "causal": {"is_causal": True},
        "boolean": {"attn_mask": torch.rand(2, 1, 5, 5) > 0.5},
        "additive": {"attn_mask": torch.randn(2, 1, 5, 5, dtype=torch.float64)},
        "grouped": {"enable_gqa": True},
    }[how]
    if how == "grouped":
        k, v = k[:, :2], v[:, :2]
    if how == "boolean":
        settings["attn_mask"][0, 0, 2] = False  # a token that may attend to nothing
    expected = nn.functional.scaled_dot_product_attention(q, k, v, **settings)
    with OpenedAttention(2, keep_graph=True) as watch:
        found = nn.functional.scaled_dot_product_attention(q, k, v, **settings)
    torch.testing.assert_close(found, expected)
    assert [w.shape for w in watch.weights] == [(2, 4, 5, 5)]
