"""What a fast copy folds: every norm that it may, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from tests.models.small_nets import Net, X, fast_of, norms


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
