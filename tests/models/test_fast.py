"""The fast copy: folds what may be folded and nothing else, leaves the original alone, and says what it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.errors import InputError, UnsupportedModel
from attrib.models import VisionModel, compare_fast, fast
from attrib.rules.shadow import shadow

X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """conv → BatchNorm → ReLU, then `middle` of it, then logits."""

    def __init__(self, middle: nn.Module | None = None, **convolution: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, **convolution)
        self.bn = nn.BatchNorm2d(8)
        self.middle = middle if middle is not None else nn.Identity()
        self.head = nn.Linear(8, 5)
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.running_mean is not None:
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)
        self.eval()

    def forward(self, x: Tensor) -> Any:
        x = self.middle(torch.relu_(self.bn(self.conv(x))))
        return self.head(x.mean((2, 3)))


def norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())


def fast_of(module: nn.Module, **options: Any) -> VisionModel:
    return fast(attrib.wrap(module.double()), example=X.double(), **options)


@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"stride": 2, "padding": 1}, {"padding": 1, "padding_mode": "reflect"}]
)
def test_folds_exactly(options: dict[str, Any]) -> None:
    module = Net(**options)
    quick = fast_of(module)
    assert norms(quick.module) == 0
    torch.testing.assert_close(quick.module(X.double()), module(X.double()), rtol=0, atol=1e-13)
    assert quick.module.conv.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr,operator]


def test_norms_without_parameters_and_linear_layers() -> None:
    class Dense(Net):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(8, affine=False)
            self.bn.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            self.head = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5))  # type: ignore[assignment]
            self.eval()

    module = Dense()
    quick = fast_of(module)
    assert norms(quick.module) == 0
    torch.testing.assert_close(quick.module(X.double()), module(X.double()), rtol=0, atol=1e-13)


class Skips(Net):
    """The convolution's output is used a second time."""

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        return self.head((self.bn(x) + x).mean((2, 3)))


class Twice(Net):
    """One BatchNorm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(3, 8, 3).eval()

    def forward(self, x: Tensor) -> Any:
        return self.head((self.bn(self.conv(x)) + self.bn(self.second(x))).mean((2, 3)))


class Reused(Net):
    """One convolution, once with and once without BatchNorm."""

    def forward(self, x: Tensor) -> Any:
        return self.head((self.bn(self.conv(x)) + self.conv(x * 2)).mean((2, 3)))


class Between(Net):
    """Something happens between the two."""

    def forward(self, x: Tensor) -> Any:
        return self.head(self.bn(self.conv(x).clamp(min=0)).mean((2, 3)))


class Viewed(Net):
    """BatchNorm gets a slice; the rest goes elsewhere."""

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        return self.head(self.bn(x[:, :, 1:]).mean((2, 3)) + x[:, :, 0].mean(2))


class Returned(Net):
    """The convolution's output is also returned."""

    def forward(self, x: Tensor) -> Any:
        inner = self.conv(x)
        return {"logits": self.head(self.bn(inner).mean((2, 3))), "features": inner}


class Shared(Net):
    """Two convolutions with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(3, 8, 3).eval()
        self.second.weight = self.conv.weight

    def forward(self, x: Tensor) -> Any:
        return self.head((self.bn(self.conv(x)) + self.second(x)).mean((2, 3)))


@pytest.mark.parametrize("kind", [Skips, Twice, Reused, Between, Viewed, Returned, Shared])
def test_what_may_not_be_folded_is_left(kind: type[Net]) -> None:
    module = kind()
    quick = fast_of(module)
    assert norms(quick.module) == 1
    expected, found = module(X.double()), quick.module(X.double())
    if isinstance(expected, dict):
        torch.testing.assert_close(found["features"], expected["features"], rtol=0, atol=1e-13)
        expected, found = expected["logits"], found["logits"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_norms_that_use_the_batch_and_norms_that_also_activate_are_left() -> None:
    from timm.layers import BatchNormAct2d

    class Plain(Net):
        def forward(self, x: Tensor) -> Any:
            return self.head(self.bn(self.conv(x)).mean((2, 3)))

    for norm in (nn.BatchNorm2d(8, track_running_stats=False), BatchNormAct2d(8)):
        module = Plain()
        module.bn = norm.eval()
        quick = fast_of(module)
        assert norms(quick.module) == 1
        torch.testing.assert_close(quick.module(X.double()), module(X.double()), rtol=0, atol=1e-13)


def test_a_layer_with_a_users_hook_is_not_folded() -> None:
    module = Net()
    module.conv.register_forward_hook(lambda module, args, output: output + 1)
    quick = fast_of(module)
    torch.testing.assert_close(quick.module(X.double()), module(X.double()))


class ReadingItsWeights(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) + self.conv.weight.sum()


def test_a_model_that_a_fold_would_break_is_found_out() -> None:
    with pytest.raises(UnsupportedModel, match="gives other outputs"):
        fast_of(ReadingItsWeights())


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
