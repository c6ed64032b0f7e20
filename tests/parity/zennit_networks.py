"""Networks of four kinds, the same as zennit needs them, and zennit's relevance of their scores.

zennit's copy of a network has its residual additions as `zennit.layer.Sum` and its pooling as modules, since its
hooks see modules only, and in place of each squeeze-and-excitation one that hands all relevance to the signal.
"""

from __future__ import annotations

import copy
import types
import warnings

import torch
import torchvision
import zennit.composites
from torch import Tensor, nn
from torchvision.models.efficientnet import MBConv
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock
from torchvision.ops.misc import SqueezeExcitation
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.layer import Sum

LOW, HIGH = -4.0, 4.5
TARGETS = [3, 0]


class Plain(nn.Sequential):
    """A network's features, average-pooled, and its classifier."""

    def __init__(self, features: nn.Module, classifier: nn.Module) -> None:
        super().__init__(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)


def build(name: str) -> nn.Module:
    made = getattr(torchvision.models, name)(weights=None, num_classes=10)
    if name.startswith("vgg"):
        made.avgpool = nn.AdaptiveAvgPool2d(1)
        made.classifier = nn.Sequential(nn.Linear(512, 32), nn.ReLU(inplace=True), nn.Linear(32, 10))
    if name == "mobilenet_v2":
        return Plain(made.features, made.classifier)
    if name == "efficientnet_b0":
        return Plain(made.features[:5], nn.Linear(80, 10))
    return made


def trained_networks() -> dict[str, nn.Module]:
    """Random weights; BatchNorm as after training on something like `x`, some of its weights negative, eps 0."""
    found = {}
    with torch.random.fork_rng():
        for name in ("vgg11", "vgg11_bn", "resnet18", "mobilenet_v2", "efficientnet_b0"):
            torch.manual_seed(0)
            net = build(name).double().eval()
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1.0
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias, 0.0, 0.2)
                    module.weight.data[::5] *= -1
                    module.train()
                elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                    nn.init.normal_(module.bias, 0.0, 0.1)
            with torch.no_grad():
                net(torch.randn(8, 3, 32, 32, dtype=torch.float64))
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 0.0
            found[name] = net.eval().requires_grad_(False)
    return found


def pictures() -> Tensor:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x.clamp(LOW, HIGH)


class SignalTakesAll(nn.Module):
    """x · gate(x); in a relevance pass all goes to x."""

    class _Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, gate):
            return x * gate

        @staticmethod
        def backward(ctx, relevance):
            return relevance, None

    def __init__(self, block: SqueezeExcitation) -> None:
        super().__init__()
        self._block = [block]  # in a list, so that zennit's hooks do not find it

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            gate = self._block[0]._scale(x.detach())
        return self._Product.apply(x, gate)


def _residual(self, x):
    return self.sum(torch.stack([self.block(x) if isinstance(self, MBConv) else self.conv(x), x], dim=-1))


def _basic_block(self, x):
    y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
    x = x if self.downsample is None else self.downsample(x)
    return self.relu2(self.sum(torch.stack([x, y], dim=-1)))


def for_zennit(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        if isinstance(module, (InvertedResidual, MBConv)) and module.use_res_connect:
            module.sum, module.forward = Sum(), types.MethodType(_residual, module)
        if isinstance(module, BasicBlock):
            module.sum, module.relu2, module.forward = Sum(), nn.ReLU(), types.MethodType(_basic_block, module)
        for name, child in module.named_children():
            if isinstance(child, SqueezeExcitation):
                setattr(module, name, SignalTakesAll(child))
            if isinstance(child, (nn.ReLU, nn.ReLU6, nn.SiLU)):
                child.inplace = False
    return net


def theirs(net: nn.Module, x: Tensor, composite_name: str, seed_is_score: bool = True, **settings) -> Tensor:
    canonizers = [SequentialMergeBatchNorm()]
    composite = getattr(zennit.composites, composite_name)(canonizers=canonizers, **settings)
    onehot = torch.eye(10, dtype=x.dtype)[TARGETS]
    with warnings.catch_warnings(), Gradient(model=for_zennit(net), composite=composite) as attributor:
        warnings.simplefilter("ignore")
        _, relevance = attributor(x.clone(), lambda output: onehot * output.detach() if seed_is_score else onehot)
    return relevance.detach()
