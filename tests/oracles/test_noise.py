"""SmoothGrad and VarGrad against plain means and variances."""

from __future__ import annotations

import pytest
import torch
from tiny_nets import Twice, pictures, rectified, wrapped

import attrib
from attrib.errors import InputError, NotApplicable, UnknownName
from attrib.methods.cam import GradCAM
from attrib.methods.gradient import Saliency
from attrib.methods.integrated import IntegratedGradients
from attrib.methods.noise import Gradient, SmoothGrad, VarGrad
from attrib.methods.passes import normal


def plain_maps(model, x, base, method):
    """Every noisy map, (n, batch, ...), one explanation at a time."""
    spread = (x.flatten(1).amax(1) - x.flatten(1).amin(1))[:, None, None, None]
    targets = attrib.explain(model, x, "saliency").target
    maps = []
    for draw in range(method.n_samples):
        noise = normal(method.seed, torch.tensor([draw]), x)
        noisy = x + method.noise_level * spread * noise
        maps.append(attrib.explain(model, noisy, base, [t["index"] for t in targets]).values)
    return torch.stack(maps)


@pytest.mark.parametrize("base", [Gradient(), Saliency(), IntegratedGradients(2)], ids=lambda b: b.name)
@pytest.mark.parametrize("net", [rectified, Twice])
def test_mean_and_variance(base, net):
    x = pictures(3)
    model = wrapped(net(), x)
    smooth, var = SmoothGrad(base, 5, 0.2, seed=4), VarGrad(base, 5, 0.2, seed=4)
    maps = plain_maps(model, x, base, smooth)
    torch.testing.assert_close(attrib.explain(model, x, smooth).values, maps.mean(0))
    torch.testing.assert_close(attrib.explain(model, x, var).values, maps.var(0, correction=0))


def test_without_noise_it_is_the_base():
    x = pictures(2)
    model = wrapped(rectified(), x)
    for base in ("saliency", "input_x_gradient"):
        expected = attrib.explain(model, x, base)
        result = attrib.explain(model, x, SmoothGrad(base, 3, 0.0))
        torch.testing.assert_close(result.values, expected.values)
        assert result.signed == expected.signed and result.reduction == expected.reduction
    assert attrib.explain(model, x, VarGrad("gradient", 3, 0.0)).values.abs().max() == 0


def test_variance_of_a_linear_network_is_zero():
    x = pictures(2)
    model = wrapped(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)), x)
    assert attrib.explain(model, x, VarGrad(n_samples=4), 1).values.abs().max() == 0


@pytest.mark.parametrize("method", [SmoothGrad(n_samples=5), VarGrad(n_samples=5)], ids=lambda m: m.name)
def test_any_chunk_gives_the_same(method):
    x = pictures(3)
    model = wrapped(rectified(), x)
    whole = attrib.explain(model, x, method).values
    torch.testing.assert_close(attrib.explain(model, x, method, max_memory=1).values, whole, rtol=1e-9, atol=1e-13)
    alone = torch.cat([attrib.explain(model, row[None], method).values for row in x])
    torch.testing.assert_close(alone, whole, rtol=1e-9, atol=1e-13)


def test_the_seed_decides_and_the_global_generator_does_not():
    x = pictures(1)
    model = wrapped(rectified(), x)
    torch.manual_seed(1)
    first = attrib.explain(model, x, SmoothGrad(n_samples=3)).values
    state = torch.get_rng_state()
    second = attrib.explain(model, x, SmoothGrad(n_samples=3)).values
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, attrib.explain(model, x, SmoothGrad(n_samples=3, seed=1)).values)


def test_noise_is_standard_normal():
    noise = normal(0, torch.arange(50), torch.zeros(1, 3, 20, 20))
    assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01
    assert abs(float((noise[0] * noise[1]).mean())) < 0.1


def test_wrong_settings_are_named():
    x = pictures(1)
    model = wrapped(rectified(), x)
    with pytest.raises(UnknownName, match="saliency"):
        attrib.explain(model, x, SmoothGrad("salience"))
    with pytest.raises(InputError, match="n_samples = 0"):
        attrib.explain(model, x, VarGrad(n_samples=0))
    with pytest.raises(NotApplicable, match="layer-level"):
        attrib.explain(model, x, SmoothGrad(GradCAM()))
    with pytest.raises(NotApplicable, match="as a base these do: gradient"):
        attrib.explain(model, x, SmoothGrad(attrib.RelP()))
