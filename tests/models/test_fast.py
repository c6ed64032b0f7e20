"""The fast copy leaves the original alone, and says what it changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.errors import InputError
from attrib.models import VisionModel, compare_fast, fast
from attrib.rules.shadow import shadow
from tests.models.small_nets import Net, X, norms


def test_the_original_is_not_touched() -> None:
    module = Net().train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    quick = fast(attrib.wrap(module), example=X)
    assert type(module.bn) is nn.BatchNorm2d
    assert module.training
    assert module.bn.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in (*module.modules(), *quick.module.modules()))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert quick.module(X).abs().max() > 0


def test_needs_an_example_without_preprocessing() -> None:
    with pytest.raises(InputError, match="example="):
        fast(attrib.wrap(Net()))
    with pytest.raises(InputError, match="dtype"):
        fast(attrib.wrap(Net()), dtype=torch.int8, example=X)


def test_real_networks_in_float64(efficientnet: VisionModel, photos: dict[str, Path]) -> None:
    exact = attrib.load("efficientnet-lite0", dtype=torch.float64)
    quick = fast(exact)
    assert norms(exact.module) == 49
    assert norms(quick.module) == 0
    report = compare_fast(exact, quick, [photos["cheetah"], photos["lion"]])
    assert max(report.logit_difference) < 1e-13
    assert max(report.map_difference) < 1e-9


def test_real_networks_in_float32(efficientnet: VisionModel, photos: dict[str, Path]) -> None:
    quick = fast(efficientnet)
    assert quick.notes == ()
    assert quick.labels == efficientnet.labels
    report = compare_fast(efficientnet, quick, list(photos.values()))
    assert max(report.logit_difference) < 1e-5
    assert all(report.same_top)
    assert min(report.map_correlation) > 0.999
    assert [p[0].label for p in quick.predict(photos["lion"])] == ["lion"]


def test_bfloat16_says_what_it_does_to_the_maps(efficientnet: VisionModel, photos: dict[str, Path]) -> None:
    quick = fast(efficientnet, dtype=torch.bfloat16)
    assert quick.dtype == torch.bfloat16
    assert "bfloat16" in quick.notes[0]
    assert "rank correlation" in quick.notes[0]
    assert quick.encode(photos["lion"]).notes == quick.notes
    report = compare_fast(efficientnet, quick, photos["persian_cat"])
    assert f"{report.map_correlation[0]:.3f}" in quick.notes[0]
    assert 0.3 < report.map_correlation[0] < 0.99  # far from the same map: this is what the note is for


def test_a_fast_copy_is_explained_like_any_model(squeezenet: VisionModel, photos: dict[str, Path]) -> None:
    quick = fast(squeezenet, dtype=torch.bfloat16)
    result = attrib.explain(quick, photos["lion"], "saliency")
    assert result.provenance.dtype == "bfloat16"
    assert result.notes[0] == quick.notes[0]
    assert result.provenance.model == "squeezenet1_1 (fast)"
    assert result.target[0]["label"] == "lion"


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "mnasnet0_5"])
def test_other_architectures(name: str) -> None:
    from torchvision import models

    torch.manual_seed(0)
    module = models.get_model(name, weights=None).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    quick = fast(attrib.wrap(module), example=x)
    left = norms(quick.module)
    assert left == 0 or (name == "densenet121" and left < norms(module))
    torch.testing.assert_close(quick.module(x), module(x), rtol=1e-9, atol=1e-9)


def sides(model: VisionModel, x: Tensor) -> list[Tensor]:
    """On which side of its kinks every unit of every ReLU or ReLU6 is, and which one each max-pool takes."""
    seen: list[Tensor] = []

    def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        z = args[0].detach()
        if isinstance(module, nn.MaxPool2d):
            options = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
            seen.append(torch.nn.functional.max_pool2d_with_indices(z, *options)[1])
        else:
            seen.append((z > 0).int() + (z > 6).int())

    twin = shadow(model.module)
    for module in twin.modules():
        if isinstance(module, (nn.ReLU, nn.ReLU6, nn.MaxPool2d)):
            module.register_forward_pre_hook(look)
    with torch.no_grad():
        twin(x)
    return seen


@pytest.mark.parametrize("name", ["efficientnet-lite0", "squeezenet1_1"])
def test_maps_differ_by_rounding_but_for_units_that_it_moves_past_a_kink(name: str, photos: dict[str, Path]) -> None:
    """In float32 a map of a network with kinks jumps where rounding moves a unit past one: the plain model's too."""
    plain = attrib.load(name)
    quick, x = fast(plain), plain.encode([str(path) for path in photos.values()]).x
    report, still = compare_fast(plain, quick, x), 0
    for row, difference in enumerate(report.map_difference):
        pairs = zip(sides(plain, x[row : row + 1]), sides(quick, x[row : row + 1]), strict=True)
        moved = sum(int((a != b).sum()) for a, b in pairs)
        assert difference < 1e-5 or 0 < moved < 100
        still += difference < 1e-5
    assert still >= len(x) / 2


def test_without_kinks_maps_are_within_rounding() -> None:
    """ResNet-18 with a smooth activation instead of its ReLUs."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    module = resnet18(weights=None).eval()
    module.maxpool = nn.AvgPool2d(3, 2, 1)
    for part in module.modules():
        if isinstance(getattr(part, "relu", None), nn.ReLU):
            part.relu = nn.Softplus()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain = attrib.wrap(module)
    report = compare_fast(plain, fast(plain, example=x), x)
    assert max(report.map_difference) < 1e-5 and max(report.logit_difference) < 1e-5
