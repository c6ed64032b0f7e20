"""Every architecture of torchvision: nothing uncovered, and the ledger accounts for the whole score."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import attrib

NAMES = (
    "alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "squeezenet1_1", "densenet121", "googlenet", "inception_v3",
    "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0", "efficientnet_v2_s",
    "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "swin_t", "vit",
)  # fmt: skip
PRESETS = ("epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1")


def vision_transformer() -> nn.Module:
    net = torchvision.models.VisionTransformer(64, 16, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64)
    nn.init.normal_(net.heads.head.weight)
    return net


def calibrated(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Random weights under which signals keep their size: BatchNorm statistics of a batch, biases that count."""
    size = 96 if name == "inception_v3" else 64
    extra = {"aux_logits": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = vision_transformer() if name == "vit" else getattr(torchvision.models, name)(weights=None, **extra)
        if name in ("alexnet", "vgg11_bn"):
            net.avgpool = nn.AdaptiveAvgPool2d(2)
            channels = 256 if name == "alexnet" else 512
            net.classifier = nn.Sequential(nn.Linear(4 * channels, 64), nn.ReLU(), nn.Linear(64, 10))
        net = net.double()
        x = torch.randn(2, 3, size, size, dtype=torch.float64)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, module.in_features**-0.5)
        norms = [module for module in net.eval().modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.train()
        with torch.no_grad():
            net(x)
    return net.eval(), x


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_accounted_for(name):
    net, x = calibrated(name)
    model = attrib.wrap(net)
    for preset in PRESETS if name in ("resnet18", "mobilenet_v3_small", "efficientnet_b0") else PRESETS[:1]:
        result = attrib.explain(model, x[:1], attrib.LRP(preset), strict=True)
        score = abs(float(result.score))
        assert score > 1e-3, "a score of nothing would prove nothing"
        assert result.coverage.uncovered == {}
        total = sum(amount for key, amount in result.ledger.items() if key != "unaccounted")
        assert abs(float(total - result.score)) < 1e-6 * score
        assert abs(float(result.ledger["unaccounted"])) < 1e-6 * score
        assert result.ledger["input"].item() == pytest.approx(result.values.sum().item(), rel=1e-9)
        assert result.values.isfinite().all() and (result.values != 0).any()


def test_segmentation_and_detection_like_outputs():
    """A dict of dense logits: the score is summed over positions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = (
            torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
            .double()
            .eval()
        )
        x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    result = attrib.explain(attrib.wrap(net), x, attrib.LRP(), 1, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(result.score, net(x)["out"][:, 1].sum((1, 2)))
    assert abs(float(result.ledger["unaccounted"])) < 1e-6 * abs(float(result.score))
