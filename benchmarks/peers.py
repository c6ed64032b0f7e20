"""The same questions put to captum, zennit and pytorch-grad-cam, each on a copy of the network of its own.

Every function takes a case and returns a call without arguments; what can be set up once is set up outside of it.
"""

from __future__ import annotations

from typing import Any

import psutil
import torch
from captum import attr
from zennit.attribution import Gradient
from zennit.composites import EpsilonGammaBox, EpsilonPlusFlat, GuidedBackprop
from zennit.core import Composite
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

from benchmarks.cases import Case
from benchmarks.measure import Run, peak_bytes

_CANONIZERS = {"resnet50": ResNetCanonizer, "vgg16": VGGCanonizer}


def captum(case: Case, name: str, **options: Any) -> Run:
    """`attribute` of the captum class `name` with its options."""
    method = getattr(attr, name)(case.copied())
    return lambda: method.attribute(case.x, target=case.index, **options)


def captum_layer(case: Case) -> Run:
    net = case.copied()
    method = attr.LayerGradCam(net, net.get_submodule(case.last_stage))
    return lambda: method.attribute(case.x, target=case.index, relu_attributions=True)


def captum_integrated(case: Case, steps: int) -> Run:
    """All steps in one batch, captum's default, where they fit into memory; else four rows at once."""
    needed = steps * peak_bytes(case.bare, case.device)
    free = torch.cuda.mem_get_info(case.device)[0] if case.device.type == "cuda" else psutil.virtual_memory().available
    rows = None if needed < 0.6 * free else max(4, case.batch)
    return captum(case, "IntegratedGradients", n_steps=steps, internal_batch_size=rows)


def zennit(case: Case, name: str) -> Run:
    """zennit's composite `name` with the canonizer of the network."""
    canonizers = [_CANONIZERS[case.network]()]
    composites: dict[str, Any] = {
        "EpsilonPlusFlat": lambda: EpsilonPlusFlat(canonizers=canonizers),
        "EpsilonGammaBox": lambda: EpsilonGammaBox(
            low=float(case.x.min()), high=float(case.x.max()), canonizers=canonizers
        ),
        "GuidedBackprop": lambda: GuidedBackprop(canonizers=canonizers),
    }
    composite: Composite = composites[name]()
    net, one_hot = case.copied(), torch.eye(1000, device=case.device)[case.index]

    def run() -> Any:
        with Gradient(net, composite) as attributor:
            return attributor(case.x.clone(), one_hot)

    return run


def grad_cam(case: Case, name: str) -> Run:
    """pytorch-grad-cam, which needs trainable parameters: it runs a whole backward. ImportError without it."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net = case.copied().requires_grad_()
    layers, targets = [net.get_submodule(case.last_stage)], [ClassifierOutputTarget(t) for t in case.targets]

    def run() -> Any:
        with getattr(pytorch_grad_cam, name)(model=net, target_layers=layers) as method:
            return method(case.x, targets)

    return run
