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


class Overwriting(Net):
    """It normalises the pictures where they lie."""

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.1).div_(0.5)
        x[..., 0, 0] = 0
        return super().forward(x)


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "occlusion", "lrp", "grad_cam", "normgrad"])
def test_a_model_that_overwrites_its_input_changes_nobody_elses(method: str) -> None:
    torch.manual_seed(0)
    net, x = Overwriting(lambda y, w: y @ w).eval(), torch.randn(2, 3, 8, 8)
    given = x.clone()
    found = attrib.explain(attrib.wrap(net), given, method, target=1)
    torch.testing.assert_close(given, x, rtol=0, atol=0)
    torch.testing.assert_close(found.score, net(x.clone())[:, 1].detach())
    torch.testing.assert_close(attrib.explain(attrib.wrap(net), given, method, target=1).values, found.values)


def test_recurrent_layers_are_told_where_only_relu_has_a_rule() -> None:
    cell = nn.RNNCell(8, 8, nonlinearity="relu")

    class Recurrent(Net):
        def __init__(self) -> None:
            super().__init__(lambda y, w: cell(y))

    found = attrib.explain(attrib.wrap(Recurrent().eval()), torch.randn(1, 3, 8, 8), "guided_backprop", target=1)
    assert found.coverage is not None and any("rnn_relu_cell" in name for name in found.coverage.uncovered)


def test_complex_layers_are_told() -> None:
    def mixed(y: Tensor, w: Tensor) -> Tensor:
        out: Tensor = torch.nn.functional.linear(torch.complex(y, y.flip(1)), torch.complex(w, w / 2)).real
        return out

    found = attrib.explain(attrib.wrap(Net(mixed).eval()), torch.randn(1, 3, 8, 8), "lrp", target=1)
    assert found.coverage is not None and any("linear" in name for name in found.coverage.uncovered)


@pytest.mark.parametrize("preset", ["epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1"])
def test_batch_norm_behind_a_grouped_transposed_convolution_is_folded(preset: str) -> None:
    """As behind the same convolution whose weight is spelled out with zeros between the groups."""
    torch.manual_seed(0)
    grouped, norm = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2), nn.BatchNorm2d(6)
    norm.running_mean, norm.running_var = torch.randn(6), torch.rand(6) + 0.5
    whole = nn.ConvTranspose2d(8, 6, 2, stride=2)
    with torch.no_grad():
        whole.weight.zero_()
        whole.weight[:4, :3], whole.weight[4:, 3:] = grouped.weight[:4], grouped.weight[4:]
        whole.bias.copy_(grouped.bias)
    head = [norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)]
    first, x = nn.Conv2d(3, 8, 3), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    nets = [nn.Sequential(first, nn.ReLU(), layer, *head).double().eval() for layer in (grouped, whole)]
    by_groups, spelled = (attrib.explain(attrib.wrap(net), x, attrib.LRP(preset=preset), target=1) for net in nets)
    torch.testing.assert_close(by_groups.values, spelled.values)


@pytest.mark.parametrize("preset", ["epsilon_plus_flat", "epsilon_gamma_box"])
def test_first_layer_rules_meet_a_model_that_normalises_its_input(preset: str) -> None:
    class Normalising(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x - 0.1) / 0.5)

    torch.manual_seed(0)
    net, x = Normalising(lambda y, w: y @ w).eval(), torch.randn(2, 3, 8, 8)
    plain = Net(net.middle).eval()
    plain.load_state_dict(net.state_dict())
    method = attrib.LRP(preset=preset, low=-5.0, high=5.0)
    found = attrib.explain(attrib.wrap(net), x, method, target=1, strict=True)
    behind = attrib.LRP(preset=preset, low=(-5.0 - 0.1) / 0.5, high=(5.0 - 0.1) / 0.5)
    wanted = attrib.explain(attrib.wrap(plain), (x - 0.1) / 0.5, behind, target=1)
    torch.testing.assert_close(found.values, wanted.values)
