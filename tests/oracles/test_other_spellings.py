"""One operation has several names in torch: whichever a model uses, it meets the same rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrib

Spelled = Callable[[Tensor], Tensor]

SAME: dict[str, tuple[Spelled, Spelled]] = {
    "clip": (lambda h: h.clip(min=0), F.relu),
    "clip_": (lambda h: torch.clip_(h * 1, 0), F.relu),
    "clip of a slice": (lambda h: _changed(h * 1), lambda h: torch.cat([h[:, :2].relu(), h[:, 2:]], 1)),
    "maximum with zeros": (lambda h: torch.maximum(torch.zeros(()).to(h), h), F.relu),
    "max with zeros": (lambda h: torch.max(h, torch.zeros_like(h)), F.relu),
    "subtract": (lambda h: torch.subtract(h, torch.ones_like(h), alpha=2), lambda h: h - 2),
    "divide_": (lambda h: (h * 1).divide_(3), lambda h: h / 3),
    "multiply": (lambda h: h.multiply(h.roll(1, 1)), lambda h: h * h.roll(1, 1)),
    "expit": (lambda h: h * torch.special.expit(h), lambda h: h * h.sigmoid()),
    "exp_": (lambda h: (h * 1).exp_(), torch.exp),
    "absolute": (lambda h: h.absolute(), torch.abs),
    "fmax": (lambda h: torch.fmax(h, h.roll(1, 1)), lambda h: torch.maximum(h, h.roll(1, 1))),
    "fmin": (lambda h: torch.fmin(h, h.roll(1, 1)), lambda h: torch.minimum(h, h.roll(1, 1))),
    "abs_": (lambda h: (h * 1).abs_(), torch.abs),
    "linalg.matmul": (lambda h: torch.linalg.matmul(h, h.flip(1)), lambda h: h @ h.flip(1)),
    "tensor_split": (lambda h: torch.cat(h.tensor_split(2, 1)[::-1], 1), lambda h: h.roll(2, 1)),
}


def _changed(h: Tensor) -> Tensor:
    h[:, :2].clip_(0)
    return h


class Spelling(nn.Module):
    def __init__(self, spelled: Spelled) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.conv, self.head, self.spelled = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(64, 3), spelled
        for parameter in self.double().parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.spelled(self.conv(x))
        scores: Tensor = self.head(h.flatten(1))
        return scores


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("method", ["guided_backprop", "deeplift", "lrp"])
def test_another_name_meets_the_same_rule(name: str, method: str) -> None:
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    other, usual = (attrib.explain(attrib.wrap(Spelling(spelled)), x, method, 1) for spelled in SAME[name])
    torch.testing.assert_close(other.values, usual.values, rtol=1e-9, atol=1e-12)
    assert other.coverage is not None and usual.coverage is not None
    assert len(other.coverage.uncovered) == len(usual.coverage.uncovered)
