"""Equal to captum in float64, to 1e-6 relative, wherever captum has the method."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch
from tiny_nets import pictures, rectified, smooth, wrapped

import attrib
from attrib.binding import bind
from attrib.methods.cam import GradCAM
from attrib.methods.integrated import IntegratedGradients
from attrib.methods.kernel import KernelSHAP
from attrib.methods.occlusion import Occlusion
from attrib.methods.passes import normal
from attrib.methods.segments import grid
from attrib.methods.shap import expected_gradients
from attrib.rules.shadow import shadow


def close(ours, theirs):
    theirs = theirs.detach().double()  # captum's occlusion adds up in float32
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("gausslegendre", "gausslegendre"),
        ("riemann_left", "riemann_left"),
        ("riemann_right", "riemann_right"),
        ("riemann_middle", "riemann_middle"),
        ("captum_trapezoid", "riemann_trapezoid"),
    ],
)
@pytest.mark.parametrize("n_steps", [5, 50])
def test_integrated_gradients(ours, theirs, n_steps):
    x, baseline = pictures(3), pictures(3, seed=4)
    model = wrapped(rectified(), x)
    result = attrib.explain(model, x, IntegratedGradients(n_steps, baseline, ours), [0, 1, 2])
    values, delta = captum.attr.IntegratedGradients(model.module).attribute(
        x, baseline, torch.tensor([0, 1, 2]), n_steps=n_steps, method=theirs, return_convergence_delta=True
    )
    close(result.values, values)
    torch.testing.assert_close(result.delta, delta, rtol=1e-6, atol=1e-7)  # its nodes are float32


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (3, 2), (5, 4), (8, 8)])
def test_occlusion(window, stride):
    x = pictures(2)
    model = wrapped(rectified(), x)
    theirs = captum.attr.Occlusion(model.module).attribute(
        x, (3, window, window), (3, stride, stride), baselines=0, target=1
    )
    close(attrib.explain(model, x, Occlusion(window, stride), 1).values, theirs)


@pytest.mark.parametrize("layer", ["0", "3", "4"])
def test_grad_cam(layer):
    x = pictures(2)
    model = wrapped(rectified(), x)
    theirs = captum.attr.LayerGradCam(model.module, model.module[int(layer)]).attribute(x, 2, relu_attributions=True)
    close(attrib.explain(model, x, GradCAM(layer), 2).values, theirs[:, 0])


def test_gradient_shap_of_the_same_draws():
    x = pictures(2)
    model = wrapped(smooth(), x)
    backgrounds, n = pictures(4, seed=6), 6
    np.random.seed(3)  # noqa: NPY002 - captum's own generator
    theirs = captum.attr.GradientShap(model.module).attribute(x, backgrounds, n_samples=n, stdevs=0.0, target=1)
    np.random.seed(3)  # noqa: NPY002
    chosen = np.random.choice(4, n * len(x))  # noqa: NPY002
    alphas = np.random.uniform(0.0, 1.0, n * len(x))  # noqa: NPY002

    def draw(draws, rows):
        # captum repeats each sample n times in a row, and weights the input with alpha
        place = (rows * n + draws).numpy()
        return backgrounds[chosen[place]], torch.from_numpy(alphas[place]), torch.zeros_like(x[rows])

    from attrib.methods.base import Question

    question = Question(model, shadow(model.module), x, bind(1, 2, model.index_of))
    close(expected_gradients(question, n, draw)[0], theirs)


@pytest.mark.parametrize(("kind", "name"), [("smoothgrad", "smoothgrad"), ("vargrad", "vargrad")])
def test_noise_tunnel_of_the_same_noise(kind, name, monkeypatch):
    x = pictures(2)
    model = wrapped(rectified(), x)
    n, level = 4, 0.1
    spread = (x.flatten(1).amax(1) - x.flatten(1).amin(1))[:, None, None, None]
    noise = level * spread[:, None] * normal(0, torch.arange(n), x)[None]

    monkeypatch.setattr(torch, "normal", lambda mean, std: noise.flatten(0, 1).to(std))
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(model.module))
    theirs = tunnel.attribute(x, name, nt_samples=n, stdevs=1.0, target=2, abs=False)
    method = attrib.METHODS[kind](n_samples=n, noise_level=level)
    close(attrib.explain(model, x, method, 2).values, theirs)


def test_kernel_shap_of_few_regions():
    pytest.importorskip("sklearn")  # captum's regression
    x = pictures(1)
    model = wrapped(rectified(), x)
    regions = grid(x[0], 4)
    torch.manual_seed(0)
    theirs = captum.attr.KernelShap(model.module).attribute(
        x, torch.zeros_like(x), 1, feature_mask=regions[None, None].expand_as(x), n_samples=600
    )
    ours = attrib.explain(model, x, KernelSHAP(n_segments=4, n_samples=14), 1).values
    # captum weighs drawn sets, so it nears the exact values that all sets give; its map holds the whole share
    assert (ours * 16 * 3 - theirs).norm() < 0.1 * theirs.norm()
