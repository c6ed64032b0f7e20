"""Grad-CAM's family, NormGrad and meta-saliency against plain matrix code; which layer is looked at."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_nets import Twice, pictures, rectified, wrapped
from torch import nn
from torch.nn import functional as F

import attrib
from attrib import readouts
from attrib.class_sensitivity import class_sensitivity, spearman
from attrib.errors import InputError, TargetError, UnknownName, UnsupportedModel
from attrib.methods.cam import GradCAM, GradCAMPlusPlus, LayerCAM
from attrib.methods.normgrad import NormGrad, geometry_of, virtual_geometry
from attrib.rules.shadow import shadow
from attrib.sites import survey
from attrib.taps import Taps


def cut(net, x, at, target):
    """Activation after module `at` of a Sequential, and the gradient there: no hooks, the net in two halves."""
    net = copy.deepcopy(net)
    for module in net:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    activation = net[: at + 1](x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net[at + 1 :](activation)[:, target].sum(), activation)
    return activation.detach(), gradient


@pytest.mark.parametrize("at", [0, 1, 3, 4])
def test_cam_family(at):
    x = pictures(2)
    model = wrapped(rectified(), x)
    a, g = cut(model.module, x, at, 2)
    layer = str(at)
    weights = g.sum((2, 3)) / (g.shape[2] * g.shape[3])
    expected = torch.einsum("bc,bchw->bhw", weights, a).clamp(min=0)
    torch.testing.assert_close(attrib.explain(model, x, GradCAM(layer), 2).values, expected)
    torch.testing.assert_close(
        attrib.explain(model, x, LayerCAM(layer), 2).values, (g.clamp(min=0) * a).sum(1).clamp(min=0)
    )
    alpha = torch.zeros_like(g)
    for index in g.nonzero():
        b, c, i, j = index.tolist()
        v = g[b, c, i, j]
        alpha[b, c, i, j] = v**2 / (2 * v**2 + a[b, c].sum() * v**3 + 1e-6)
    weights = (alpha * g.clamp(min=0)).sum((2, 3))
    expected = torch.einsum("bc,bchw->bhw", weights, a).clamp(min=0)
    torch.testing.assert_close(attrib.explain(model, x, GradCAMPlusPlus(layer), 2).values, expected)


def test_a_convolution_is_channels_first_whatever_its_shape():
    x = pictures(1)
    convolution = nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
    net = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(160, 2)).to(x.dtype)
    a, g = cut(net, x, 0, 1)
    assert a.shape == (1, 4, 4, 10)
    found = attrib.explain(attrib.wrap(net), x, LayerCAM("0"), 1).values
    torch.testing.assert_close(found, (g.clamp(min=0) * a).sum(1).clamp(min=0))


def test_grad_cam_of_pooled_features_is_the_class_activation_map():
    x = pictures(2)
    model = wrapped(rectified(), x)
    a, _ = cut(model.module, x, 4, 2)
    cam = torch.einsum("c,bchw->bhw", model.module[7].weight[2].detach(), a) / (a.shape[2] * a.shape[3])
    torch.testing.assert_close(attrib.explain(model, x, "grad_cam", 2).values, cam.clamp(min=0))


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
    with pytest.raises(attrib.InputError, match="one number of at least 0 for each"):
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


def test_a_module_used_twice_is_read_at_its_last_run():
    x = pictures(2)
    model = wrapped(Twice(), x)
    net = model.module
    with torch.no_grad():
        first = torch.relu(net.stem(x))
        middle = torch.relu(net.again(first))
        last = net.again(middle)
    leaf = last.requires_grad_()
    (g,) = torch.autograd.grad(net.head((torch.relu(leaf) + first).mean((2, 3)))[:, 1].sum(), leaf)
    result = attrib.explain(model, x, LayerCAM("again"), 1)
    torch.testing.assert_close(result.values, readouts.layer_cam(last.detach(), g))
    assert any("runs 2 times" in note for note in result.notes)


def test_nothing_before_the_layer_builds_a_graph():
    x = pictures(1)
    model = wrapped(rectified(), x)
    twin = shadow(model.module)
    seen = {}
    for name, module in twin.named_children():
        module.register_forward_hook(lambda m, a, o, name=name: seen.update({name: o.requires_grad}))
    with Taps(twin, ["4", "3"]) as taps, torch.enable_grad():
        taps.gradients(twin(x)[:, 0])
    assert [name for name, needs in seen.items() if needs] == ["4", "5", "6", "7"]  # "3" becomes a leaf after its hook


def test_a_layer_that_the_score_ignores_gives_zero():
    x = pictures(1)
    model = wrapped(rectified(), x)
    result = attrib.explain(model, x, GradCAM("4"), lambda outputs: outputs.detach().sum(1))
    assert result.values.abs().max() == 0 and any("zero everywhere" in note for note in result.notes)


def test_wrong_layers_are_named():
    x = pictures(1)
    model = wrapped(Twice(), x)
    with pytest.raises(UnknownName, match="stem"):
        attrib.explain(model, x, GradCAM("stemm"))
    with pytest.raises(InputError, match="lies on no grid"):
        attrib.explain(model, x, GradCAM("head"))
    model.module.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(InputError, match="did not run"):
        attrib.explain(model, x, GradCAM("unused"))
    for method in (NormGrad(virtual="conv2x2"), NormGrad(aggregate="mean"), NormGrad(combine="max")):
        with pytest.raises(UnknownName):
            attrib.explain(model, x, method)
    flat = wrapped(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), x)
    with pytest.raises(UnsupportedModel, match="input-level"):
        attrib.explain(flat, x, "grad_cam")


def survey_of(net, side=64):
    net.eval()
    return survey(net, shadow(net), torch.randn(1, 3, side, side))


@pytest.mark.parametrize(
    ("name", "side", "stages"),
    [
        ("resnet18", 64, ("layer1", "layer2", "layer3", "layer4")),
        ("vgg11", 64, ("features.4", "features.9", "features.14", "features.19")),
        ("squeezenet1_1", 64, ("features.1", "features.4", "features.7", "features")),
        ("mobilenet_v2", 64, ("features.3", "features.6", "features.13", "features")),
        ("swin_t", 64, ("features.1", "features.3", "features.5", "permute")),
    ],
)
def test_stages_of_torchvision_models(name, side, stages):
    import torchvision

    assert survey_of(getattr(torchvision.models, name)(), side).stages() == stages


def test_transformers_are_read_on_their_grid_of_patches():
    import timm
    import transformers
    from torchvision.models import VisionTransformer

    tv = VisionTransformer(32, 8, 3, 2, 12, 24, num_classes=5)
    config = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    vit = transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, **config)
    )
    dino = transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(image_size=28, patch_size=7, num_labels=5, **config)
    )
    registers = timm.create_model(
        "vit_small_patch14_reg4_dinov2", pretrained=False, img_size=28, patch_size=7, embed_dim=12, depth=3, num_heads=2
    )
    for net, side, layer, prefix in (
        (tv, 32, "encoder.layers.encoder_layer_2.ln_1", 1),
        (vit, 32, "vit.layers.2.layernorm_before", 1),
        (dino, 28, "dinov2.encoder.layer.2.norm1", 1),
        (registers, 28, "blocks.2.norm1", 5),
    ):
        seen = survey_of(net, side)
        assert seen.last_stage() == layer
        grid = seen.grid((1, 16 + prefix, 12), layer)
        assert (grid.layout, grid.height, grid.width, grid.prefix) == ("tokens", 4, 4, prefix)
        tokens = torch.arange(16 + prefix)[None, :, None].expand(1, -1, 12)
        assert grid.maps(tokens)[0, 0].flatten().tolist() == list(range(prefix, 16 + prefix))
        result = attrib.explain(attrib.wrap(net), torch.randn(2, 3, side, side), "layer_cam")
        assert result.values.shape == (2, 4, 4)


def test_class_sensitivity():
    x = pictures(3)
    model = wrapped(rectified(), x)
    found = class_sensitivity(model, x, "input_x_gradient")
    logits = model.module(x)
    assert torch.equal(found.best, logits.argmax(1)) and torch.equal(found.worst, logits.argmin(1))
    maps = [attrib.explain(model, x, "input_x_gradient", c.tolist()).values.sum(1) for c in (found.best, found.worst)]
    scipy = pytest.importorskip("scipy.stats")
    expected = [scipy.spearmanr(a.flatten().float(), b.flatten().float()).statistic for a, b in zip(*maps, strict=True)]
    assert found.correlation.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.mean == pytest.approx(float(np.mean(expected)), abs=1e-6)
    assert found.std == pytest.approx(float(np.std(expected)), abs=1e-6)


def test_class_sensitivity_drops_constant_maps():
    x = pictures(2)
    found = class_sensitivity(wrapped(rectified(), x), x, NormGrad("4", "bias"))
    assert found.correlation.isnan().all() and np.isnan(found.mean)
    assert spearman(np.array([1.0, 1, 2, 3]), np.array([4.0, 4, 5, 6])) == pytest.approx(1)


def test_runs_before_the_last_build_no_graph():
    x = pictures(1)
    model = wrapped(Twice(), x)
    twin = shadow(model.module)
    seen = survey(model.module, twin, x)
    assert seen.runs("again") == 2 and seen.runs("stem") == 1
    needs = []
    with Taps(twin, ["again"], seen=seen) as taps, torch.enable_grad():
        twin.again.register_forward_hook(lambda m, a, o: needs.append(o.requires_grad))
        taps.gradients(twin(x)["logits"][:, 0])
    assert needs == [False, True]
