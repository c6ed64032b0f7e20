"""z-box where the first layer does not see the picture as the bounds are laid out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attrib

LOW = torch.tensor([-2.1, -2.2, -2.3], dtype=torch.float64).view(3, 1, 1)
SEEN: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
    "patches": (nn.Linear(48, 8), lambda x: F.unfold(x, 4, stride=4).transpose(1, 2)),
    "all at once": (nn.Linear(768, 8), lambda x: x.flatten(1)),
    "channels last": (nn.Linear(3, 8), lambda x: x.permute(0, 2, 3, 1)),
    "a volume": (nn.Conv3d(3, 8, (1, 3, 3)), lambda x: x[:, :, None]),
}


class Net(nn.Module):
    def __init__(self, first: nn.Module, seen: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.head, self.seen = first, nn.Linear(8, 5), seen

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(self.seen(x)).relu()
        y = (
            y.flatten(2).mean(2)
            if isinstance(self.first, nn.Conv3d)
            else y.flatten(1, -2).mean(1)
            if y.dim() > 2
            else y
        )
        out: Tensor = self.head(y)
        return out


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("bounds", [{"low": LOW, "high": -LOW}, {"low": LOW[None], "high": 2.3}], ids=["three", "four"])
def test_the_widest_bounds_are_taken(bounds: dict[str, Any], name: str) -> None:
    torch.manual_seed(0)
    net = Net(*SEEN[name]).double().eval()
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64).clamp(-2, 2)
    found = attrib.explain(attrib.wrap(net), x, attrib.LRP(preset="epsilon_gamma_box", **bounds), target=1)
    numbers = attrib.LRP(preset="epsilon_gamma_box", low=-2.3, high=2.3)
    assert found.delta is not None and float(found.delta.abs().max()) < 1e-12
    torch.testing.assert_close(found.values, attrib.explain(attrib.wrap(net), x, numbers, target=1).values)


@pytest.mark.parametrize("low", [float("nan"), "black", torch.zeros(2), torch.zeros(5, 3, 1, 1), object()])
def test_what_is_no_bound_is_refused(low: Any) -> None:
    net = Net(*SEEN["all at once"]).double().eval()
    with pytest.raises(attrib.InputError, match="bound of inputs"):
        attrib.explain(attrib.wrap(net), torch.zeros(2, 3, 16, 16), attrib.LRP(low=low, high=1.0), target=1)
