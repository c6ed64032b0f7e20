"""Operations that torch itself handles apart: gradients where that is possible, a clear sentence where it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import attrib


class Net(nn.Module):
    def __init__(self, middle: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.weight = nn.Parameter(torch.randn(8, 8) * 0.3)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.middle(self.conv(x).relu().mean((2, 3)), self.weight))
        return out


def energy_gradient(y: Tensor, w: Tensor) -> Tensor:
    found: Tensor = torch.vmap(torch.func.grad(lambda v: (torch.tanh(v @ w) ** 2).sum()))(y)
    return found


UNUSUAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "func.grad": energy_gradient,
    "func.jvp": lambda y, w: sum(torch.func.jvp(lambda v: torch.sigmoid(v @ w), (y,), (torch.ones_like(y),))),
    "sparse": lambda y, w: torch.sparse.mm(w.detach().to_sparse(), y.T).T,
    "nested": lambda y, w: torch.nested.to_padded_tensor(torch.nested.as_nested_tensor(list(y[:, None])), 0.0)[:, 0],
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", UNUSUAL)
def test_gradients_are_autograds_and_rules_name_the_operation(name: str) -> None:
    torch.manual_seed(0)
    net = Net(UNUSUAL[name]).eval()
    model, x = attrib.wrap(net), torch.randn(2, 3, 8, 8)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(attrib.explain(model, x, "saliency", target=1).values, wanted.abs())
    with pytest.raises(attrib.UncoveredOperation):
        attrib.explain(model, x, "lrp", target=1, strict=True)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "lrp", "deeplift", "grad_cam", "normgrad"])
def test_reentrant_checkpoints_are_refused_in_a_sentence(method: str) -> None:
    class Inside(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = checkpoint(lambda v: self.conv(v).relu(), x, use_reentrant=True)
            out: Tensor = self.head(y.mean((2, 3)))
            return out

    net = Inside(lambda y, w: y).eval()
    with pytest.raises(attrib.UnsupportedModel, match="use_reentrant=False"):
        attrib.explain(attrib.wrap(net), torch.randn(2, 3, 8, 8), method, target=1)


class Growing(Net):
    def __init__(self, middle: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(middle)
        self.grown: nn.Parameter | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.grown is None:
            self.grown = nn.Parameter(torch.ones(8))
        out: Tensor = self.head(self.conv(x).relu().mean((2, 3)) * self.grown)
        return out


@pytest.mark.parametrize("method", ["saliency", "lrp", "occlusion"])
def test_parameters_made_in_the_forward_are_told(method: str) -> None:
    net, x = Growing(lambda y, w: y).eval(), torch.randn(1, 3, 8, 8)
    with pytest.raises(attrib.UnsupportedModel, match="'grown' in its forward"):
        attrib.explain(attrib.wrap(net), x, method, target=1)
    assert net.grown is None
    net(x)
    assert attrib.explain(attrib.wrap(net), x, method, target=1).values.any()
