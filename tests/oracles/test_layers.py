"""Grad-CAM's family, NormGrad and meta-saliency against plain matrix code; which layer is looked at."""

from __future__ import annotations

import pytest
import torch
from tiny_nets import Twice, cut, pictures, rectified, wrapped
from torch import nn

import attrib
from attrib import readouts
from attrib.errors import InputError, UnknownName, UnsupportedModel
from attrib.methods.cam import GradCAM, GradCAMPlusPlus, LayerCAM
from attrib.methods.normgrad import NormGrad
from attrib.rules.shadow import shadow
from attrib.sites import survey
from attrib.taps import Taps


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
