"""A model that cuts relevance off inside its forward is told so, by the operation and the module."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import attrib


class Inner(nn.Module):
    def __init__(self, cut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.cut = cut
        self.register_buffer("some", torch.zeros(1))  # without any it could be an activation, which is one operation

    def forward(self, y: Tensor) -> Tensor:
        return self.cut(y)


def net(cut: Callable[[Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(0)
    parts = (nn.Conv2d(3, 4, 3), nn.ReLU(), Inner(cut), nn.Flatten(), nn.Linear(144, 5))
    return nn.Sequential(*parts).double().eval()


def under_no_grad(y: Tensor) -> Tensor:
    with torch.no_grad():
        gate = torch.sigmoid(y.mean((2, 3), keepdim=True))
    return y * gate


def under_inference_mode(y: Tensor) -> Tensor:
    with torch.inference_mode():
        gate = torch.sigmoid(y.mean((2, 3), keepdim=True))
    return y * gate.clone()


def written_into_a_buffer(y: Tensor) -> Tensor:
    kept = torch.zeros_like(y)
    kept[:, :2] = y[:, :2].detach()
    return y + kept


def in_place(y: Tensor) -> Tensor:
    y = y.clone()
    with torch.no_grad():
        y.mul_(2.0)
    return y


def with_a_hook(y: Tensor) -> Tensor:
    y = y * 1.0
    if y.requires_grad:
        y.register_hook(lambda c: c * 2)
    return y


CUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "no_grad": under_no_grad,
    "no_grad ": under_inference_mode,
    "no_grad  ": in_place,
    "detach": lambda y: y + (torch.round(y * 4) / 4 - y).detach(),
    "detach ": written_into_a_buffer,
    "register_hook": with_a_hook,
    "data": lambda y: y * y.data.tanh(),
    "item": lambda y: y / y.amax().item(),
    "float": lambda y: y * float(y.detach().mean()),
    "numpy": lambda y: y + torch.from_numpy(y.detach().numpy() * 0.1),
    "tolist": lambda y: y + torch.tensor(y[0].mean((1, 2)).tolist(), dtype=y.dtype)[:, None, None],
}
METHODS = (attrib.LRP(preset="epsilon"), attrib.LRP(), attrib.DeepLift())


@pytest.mark.parametrize("method", METHODS, ids=["epsilon", "auto", "deeplift"])
@pytest.mark.parametrize("name", CUTS)
def test_a_cut_is_named(name: str, method: attrib.Method) -> None:
    model, x = attrib.wrap(net(CUTS[name])), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    found = attrib.explain(model, x, method, target=1)
    assert found.coverage is not None
    assert set(found.coverage.uncovered) == {f"{name.strip()} in 2"}
    with pytest.raises(attrib.UncoveredOperation, match=f"'{name.strip()}' in module '2'"):
        attrib.explain(model, x, method, target=1, strict=True)


HARMLESS: dict[str, Callable[[Tensor], Tensor]] = {
    "a mask": lambda y: y * (y.detach() >= 0),
    "a branch": lambda y: y * 2 if bool(y.detach().sum() > 0) else y,
    "looked at only": lambda y: (y.detach().mean(), y)[1],
    "its shape": lambda y: y + torch.zeros_like(y.detach()) + y.detach().new_ones(1),
}


@pytest.mark.parametrize("method", METHODS, ids=["epsilon", "auto", "deeplift"])
@pytest.mark.parametrize("name", HARMLESS)
def test_what_cuts_nothing_is_not_named(name: str, method: attrib.Method) -> None:
    model, x = attrib.wrap(net(HARMLESS[name])), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    found = attrib.explain(model, x, method, target=1, strict=True)
    assert found.coverage is not None and not found.coverage.uncovered


@pytest.mark.parametrize("method", METHODS, ids=["epsilon", "auto", "deeplift"])
@pytest.mark.parametrize("before", [False, True])
def test_a_backward_hook_that_changes_gradients_is_named(before: bool, method: attrib.Method) -> None:
    looking, changing = net(lambda y: y * 2), net(lambda y: y * 2)
    seen: list[Tensor] = []
    for part, answer in ((looking[1], lambda g: seen.append(g[0])), (changing[1], lambda g: (g[0] * 2,))):
        if before:
            part.register_full_backward_pre_hook(lambda module, above, answer=answer: answer(above))
        else:
            part.register_full_backward_hook(lambda module, below, above, answer=answer: answer(below))
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    for _ in range(2):
        found = attrib.explain(attrib.wrap(looking), x, method, target=1, strict=True)
        assert found.coverage is not None and not found.coverage.uncovered and seen
    found = attrib.explain(attrib.wrap(changing), x, method, target=1)
    assert found.coverage is not None and set(found.coverage.uncovered) == {"a backward hook in 1"}
    with pytest.raises(attrib.UncoveredOperation, match="'a backward hook' in module '1'"):
        attrib.explain(attrib.wrap(changing), x, method, target=1, strict=True)
