"""Models that do not answer a sample of a batch as they answer it alone, or not twice the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.apart import NOTES

METHODS = (
    attrib.Saliency(),
    attrib.IntegratedGradients(n_steps=8),
    attrib.Occlusion(window=4, stride=2),
    attrib.LRP(preset="epsilon"),
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.conv(x)).relu().mean((2, 3)))
        return out


class AsTheBatchSays(nn.Sequential):
    """Takes one of two ways for all samples, by their sum."""

    def forward(self, x: Tensor) -> Tensor:
        return self[0](x) if x.sum() > 0 else self[1](x)


class FromTheOneBefore(nn.Sequential):
    """Each sample but the first is told of the one before it."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(torch.cat([x[:1], x[1:] + x[:-1]]))
        return out


class Dropping(Net):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.3, training=True)


def two_ways() -> nn.Module:
    return AsTheBatchSays(*(nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 5)) for _ in "ab"))


def one_way() -> nn.Module:
    return FromTheOneBefore(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 5))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("make", [Net, two_ways, one_way])
def test_a_model_that_mixes_its_batch_is_asked_row_by_row(make: type[nn.Module], method: attrib.Saliency) -> None:
    torch.manual_seed(0)
    model = attrib.wrap(make().eval())
    x = torch.randn(3, 3, 8, 8)
    together = attrib.explain(model, x, method, target=1)
    alone = [attrib.explain(model, row[None], method, target=1).values for row in x]
    assert torch.equal(together.values, torch.cat(alone))
    assert NOTES["mixes"] in together.notes


def test_a_model_that_draws_random_numbers_is_told() -> None:
    torch.manual_seed(0)
    model = attrib.wrap(Dropping().eval())
    assert NOTES["draws"] in attrib.explain(model, torch.randn(2, 3, 8, 8), "saliency", target=1).notes


class Observing(Net):
    """Divides by the largest value it ever saw."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()  # type: ignore[assignment]
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        largest: Tensor = self.largest  # type: ignore[assignment]
        largest.copy_(torch.maximum(largest, x.detach().abs().max()))
        return super().forward(x / largest)


def test_a_model_that_remembers_is_told() -> None:
    torch.manual_seed(0)
    model = attrib.wrap(Observing().eval())
    assert NOTES["remembers"] in attrib.explain(model, torch.randn(2, 3, 8, 8), "deeplift", target=1).notes


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_an_ordinary_model_is_told_nothing(method: attrib.Saliency) -> None:
    model = attrib.wrap(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    )
    found = attrib.explain(model, torch.randn(2, 3, 8, 8), method, target=1)
    assert not set(NOTES.values()) & set(found.notes)
