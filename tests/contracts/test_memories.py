"""Models that write into tensors of their own in every forward: theirs stay as they are, whatever their size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import attrib


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.register_buffer("bank", torch.zeros(400_000))  # 1.6 MB
        self.last = torch.zeros(4)
        self.kept = {"all": [torch.zeros(4)]}

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu().mean((2, 3))
        with torch.no_grad():
            bank: Tensor = self.bank  # type: ignore[assignment]
            bank[:4].add_(y.sum(0))
            self.last.copy_(y[0])
            self.kept["all"][0] += 1
        out: Tensor = self.head(y)
        return out


METHODS = ("saliency", "integrated_gradients", "lrp", "deeplift", "grad_cam", "occlusion", "guided_backprop")


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_written_into_the_users_tensors(method: str) -> None:
    torch.manual_seed(0)
    net = Remembering().eval()
    model = attrib.wrap(net)
    x = torch.randn(2, 3, 20, 20)
    attrib.explain(model, x, method, target=1)
    model.predict(x)
    with pytest.raises(attrib.TargetError):
        attrib.explain(model, x, method, target=77)
    held = (net.bank, net.last, net.kept["all"][0])
    assert all(not tensor.any() and tensor._version == 0 for tensor in held if isinstance(tensor, Tensor))


def test_a_hook_still_writes_into_the_callers_tensor() -> None:
    count = torch.zeros(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 18 * 18, 5)).eval()
    net[0].register_forward_hook(lambda module, args, output: count.add_(1) and None)
    attrib.explain(attrib.wrap(net), torch.randn(1, 3, 20, 20), "saliency", target=1)
    assert count > 0
