"""NormGrad and meta-saliency: closed forms against gradients written out, layers combined, a copy trained by SGD."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_nets import cut, pictures, rectified, wrapped
from torch import nn
from torch.nn import functional as F

import attrib
from attrib import readouts
from attrib.errors import InputError, TargetError
from attrib.methods.geometries import geometry_of, virtual_geometry
from attrib.methods.normgrad import NormGrad


def slow_terms(virtual, x, g, conv=None):
    """(batch, h, w, terms): a virtual layer's parameter gradient at each position, written out."""
    if virtual == "bias":
        return g.permute(0, 2, 3, 1)
    if virtual == "scaling":
        return (x * g).permute(0, 2, 3, 1)
    side = 1 if virtual == "conv1x1" else 3
    if conv is None:
        patches = F.unfold(x, side, padding=side // 2)
    else:
        patches = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    batch, channels = g.shape[:2]
    patches = patches.reshape(batch, -1, *g.shape[2:])
    if virtual == "depthwise3x3":
        patches = patches.reshape(batch, channels, 9, *g.shape[2:])
        return (patches * g[:, :, None]).flatten(1, 2).permute(0, 2, 3, 1)
    if conv is not None and conv.groups > 1:
        patches = patches.reshape(batch, conv.groups, -1, *g.shape[2:])
        g = g.reshape(batch, conv.groups, -1, *g.shape[2:])
        outer = torch.einsum("bnphw,bnghw->bnpghw", patches, g)
        return outer.flatten(1, 3).permute(0, 2, 3, 1)
    return torch.einsum("bphw,bghw->bpghw", patches, g).flatten(1, 2).permute(0, 2, 3, 1)


SLOW = {
    "sum": lambda t: t.sum(-1),
    "norm": lambda t: t.norm(dim=-1),
    "filter_norm": lambda t: t.clamp(min=0).norm(dim=-1),
    "max": lambda t: t.amax(-1),
}


@pytest.mark.parametrize("aggregate", SLOW)
@pytest.mark.parametrize("virtual", ["bias", "scaling", "conv1x1", "conv3x3", "depthwise3x3"])
def test_closed_forms_equal_the_written_out_gradients(virtual, aggregate):
    x, g = pictures(2, 5, seed=2), pictures(2, 5, seed=3)
    expected = SLOW[aggregate](slow_terms(virtual, x, g))
    torch.testing.assert_close(readouts.norm_grad(x, g, virtual_geometry(virtual, 3), aggregate), expected)


@pytest.mark.parametrize("aggregate", SLOW)
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, (3, 2), padding=(1, 0), dilation=(2, 1)),
        nn.Conv2d(4, 4, 3, groups=2, padding=1),
        nn.Conv2d(4, 8, 3, groups=4, stride=2),
    ],
    ids=["strided", "dilated", "grouped", "depthwise"],
)
def test_a_real_convolution_has_its_own_geometry(conv, aggregate):
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    g = torch.randn_like(conv.double()(x))
    expected = SLOW[aggregate](slow_terms("none", x, g, conv))
    torch.testing.assert_close(readouts.norm_grad(x, g, geometry_of(conv, "conv"), aggregate), expected)


def test_positions_of_sum_add_up_to_the_weight_gradient():
    x = pictures(1)
    model = wrapped(rectified(), x)
    net = copy.deepcopy(model.module)
    (gradient,) = torch.autograd.grad(net(x)[0, 2], net[3].weight)
    values = attrib.explain(model, x, NormGrad("3", "none", "sum"), 2).values
    torch.testing.assert_close(values.sum(), gradient.sum())


def test_virtual_none_equals_the_gradient_of_each_position():
    x = pictures(1)
    model = wrapped(rectified(), x)
    entering, _ = cut(model.module, x, 2, 2)
    _, g = cut(model.module, x, 3, 2)
    expected = slow_terms("none", entering, g, model.module[3]).norm(dim=-1)
    torch.testing.assert_close(attrib.explain(model, x, NormGrad("3", "none"), 2).values, expected)
    by_default = attrib.explain(model, x, NormGrad("last", "none"), 2)
    torch.testing.assert_close(by_default.values, expected)
    with pytest.raises(InputError, match="name a Conv2d"):
        attrib.explain(model, x, NormGrad("4", "none"), 2)


@pytest.mark.parametrize("combine", ["product", "sum", "geometric"])
@pytest.mark.parametrize("weights", ["uniform", "linear", (6.0, 2.0)])
def test_layers_combined(combine, weights):
    x = pictures(2)
    model = wrapped(rectified(), x)
    maps = []
    for at in (1, 4):
        a, g = cut(model.module, x, at, 2)
        m = F.interpolate((a.norm(dim=1) * g.norm(dim=1))[:, None], (8, 8), mode="bilinear")[:, 0]
        low, high = m.amin((1, 2), keepdim=True), m.amax((1, 2), keepdim=True)
        maps.append((m - low) / (high - low))
    w = {"uniform": (1 / 2, 1 / 2), "linear": (1 / 3, 2 / 3), (6.0, 2.0): (3 / 4, 1 / 4)}[weights]
    expected = {
        "product": maps[0] * maps[1],
        "sum": w[0] * maps[0] + w[1] * maps[1],
        "geometric": maps[0] ** w[0] * maps[1] ** w[1],
    }[combine]
    result = attrib.explain(model, x, NormGrad(("1", "4"), combine=combine, weights=weights), 2)
    torch.testing.assert_close(result.values, expected)
    torch.testing.assert_close(attrib.explain(model, x, NormGrad(combine=combine, weights=weights), 2).values, expected)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, float("nan"))])
def test_weights_that_do_not_fit_the_layers(weights):
    x = pictures(1)
    with pytest.raises(attrib.InputError, match=r"one number of at least 0 for each|a tuple of finite numbers"):
        attrib.explain(wrapped(rectified(), x), x, NormGrad(("1", "4"), combine="sum", weights=weights), 2)


def test_a_constant_map_is_left_out_and_said():
    x = pictures(2)
    model = wrapped(rectified(), x)
    # behind global pooling's input the gradient is the same everywhere, so the bias map is constant
    both = attrib.explain(model, x, NormGrad(("1", "4"), "bias"), 2)
    _, g = cut(model.module, x, 1, 2)
    expected, _ = readouts.normalised(F.interpolate(g.norm(dim=1)[:, None], (8, 8), mode="bilinear")[:, 0])
    torch.testing.assert_close(both.values, expected)
    assert any("layer 4 is constant" in note for note in both.notes)
    for combine in ("product", "sum", "geometric"):
        nothing, constant = readouts.combined([torch.ones(1, 4, 4)] * 2, (4, 4), combine, torch.ones(2))
        assert nothing.abs().max() == 0 and constant.all()


def test_meta_saliency_is_the_method_on_a_trained_copy():
    x = pictures(2)
    model = wrapped(rectified(), x)
    before = copy.deepcopy(model.module.state_dict())
    result = attrib.explain(model, x, NormGrad(("4",), meta_lr=0.05), [2, 3])
    for row, target in enumerate((2, 3)):
        trained = copy.deepcopy(model.module)
        sgd = torch.optim.SGD(trained.parameters(), lr=0.05)
        F.cross_entropy(trained(x[row : row + 1]), torch.tensor([target])).backward()
        sgd.step()
        better = trained(x[row : row + 1]).log_softmax(1)[0, target]
        assert better > model.module(x[row : row + 1]).log_softmax(1)[0, target]
        expected = attrib.explain(attrib.wrap(trained), x[row : row + 1], NormGrad(("4",)), target).values
        torch.testing.assert_close(result.values[row : row + 1], expected)
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())
    plain = attrib.explain(model, x, NormGrad(("4",)), [2, 3])
    torch.testing.assert_close(attrib.explain(model, x, NormGrad(("4",), meta_lr=0.0), [2, 3]).values, plain.values)
    torch.testing.assert_close(result.score, plain.score)
    with pytest.raises(TargetError, match="one class"):
        attrib.explain(model, x, NormGrad(meta_lr=0.1), attrib.LogitDiff(0, 1))
