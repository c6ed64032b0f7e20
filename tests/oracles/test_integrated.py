"""Integrated gradients, GradientSHAP and their baselines against slow plain sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_nets import Twice, pictures, rectified, smooth, wrapped

import attrib
from attrib.errors import InputError, UnknownName
from attrib.methods.baselines import PICTURE_BASELINES, baseline_of
from attrib.methods.integrated import QUADRATURES, IntegratedGradients, nodes_and_weights
from attrib.methods.shap import GradientSHAP
from attrib.models import Preprocessing


def plain_integrated_gradients(net, x, baseline, target, nodes, weights):
    total = torch.zeros_like(x)
    for node, weight in zip(nodes, weights, strict=True):
        point = (baseline + node * (x - baseline)).requires_grad_()
        out = net(point)
        out = out["logits"] if isinstance(out, dict) else out
        total += weight * torch.autograd.grad(out[:, target].sum(), point)[0]
    return (x - baseline) * total


@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("net", [smooth, Twice])
def test_equals_the_plain_sum(quadrature, net):
    x = pictures()
    model = wrapped(net(), x)
    baseline = pictures(2, seed=5)
    result = attrib.explain(model, x, IntegratedGradients(7, baseline, quadrature), 3)
    expected = plain_integrated_gradients(model.module, x, baseline, 3, *nodes_and_weights(quadrature, 7))
    torch.testing.assert_close(result.values, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("n", [2, 5, 50])
def test_weights_integrate_constants_and_lines(quadrature, n):
    nodes, weights = nodes_and_weights(quadrature, n)
    whole = (n - 1) / n if quadrature == "captum_trapezoid" else 1.0
    assert float(weights.sum()) == pytest.approx(whole, abs=1e-12)
    if quadrature in ("gausslegendre", "riemann_middle", "trapezoid"):
        assert float((nodes * weights).sum()) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 400])
def test_gauss_legendre_equals_numpys(n):
    roots, weights = np.polynomial.legendre.leggauss(n)
    found = nodes_and_weights("gausslegendre", n)
    np.testing.assert_allclose(found[0], (1 + roots) / 2, rtol=0, atol=1e-15)
    np.testing.assert_allclose(found[1], weights / 2, rtol=1e-8)


def test_more_steps_than_anybody_waits_for_are_refused_before_memory_is_taken():
    for quadrature in QUADRATURES:
        with pytest.raises(InputError, match="32768 are the most"):
            nodes_and_weights(quadrature, 10**9)


def test_gauss_legendre_is_complete_on_a_smooth_network():
    x = pictures()
    result = attrib.explain(wrapped(smooth(), x), x, IntegratedGradients(30), 0)
    assert result.delta.abs().max() < 1e-8


@pytest.mark.parametrize("max_memory", [1, None])
def test_any_chunk_gives_the_same(max_memory):
    x = pictures(5)
    model = wrapped(rectified(), x)
    result = attrib.explain(model, x, IntegratedGradients(6), max_memory=max_memory)
    alone = [attrib.explain(model, row[None], IntegratedGradients(6)).values for row in x]
    torch.testing.assert_close(result.values, torch.cat(alone), rtol=1e-10, atol=1e-13)


def test_tolerance_takes_the_fewest_doublings_for_each_sample():
    x = pictures(4)
    model = wrapped(rectified(), x)
    errors = {n: (attrib.explain(model, x, IntegratedGradients(n), 1)) for n in (4, 8, 16, 32, 64, 128)}
    tolerance = 2e-2
    result = attrib.explain(model, x, IntegratedGradients(4, tolerance=tolerance), 1)
    blank = model.module(torch.zeros_like(x))[:, 1].detach()
    for row in range(4):
        difference = (result.score[row] - blank[row]).abs()
        fewest = next(n for n in errors if errors[n].delta[row].abs() <= tolerance * difference)
        torch.testing.assert_close(result.values[row], errors[fewest].values[row])
    assert any("meet the tolerance" in note for note in result.notes)


def test_a_tolerance_that_cannot_be_met_is_said():
    x = pictures(1)
    result = attrib.explain(
        wrapped(rectified(), x), x, IntegratedGradients(2, quadrature="riemann_left", tolerance=1e-14), 1
    )
    assert any("is not met" in note for note in result.notes)


def test_a_baseline_equal_to_the_input_is_said():
    x = pictures(2)
    x[1] = 0
    notes = attrib.explain(wrapped(smooth(), x), x, IntegratedGradients(2), 0).notes
    assert any("equals input 1" in note for note in notes)


def question_of(model, x):
    from attrib.binding import bind
    from attrib.methods.base import Question
    from attrib.rules.shadow import shadow

    return Question(model, shadow(model.module), x, bind(0, len(x), model.index_of))


@pytest.mark.parametrize("name", PICTURE_BASELINES)
def test_a_named_baseline_is_the_same_in_a_batch_as_alone(name):
    x = pictures(3)
    model = attrib.wrap(rectified(), preprocessing=Preprocessing(8, 8))
    together = baseline_of(name, question_of(model, x))
    alone = torch.cat([baseline_of(name, question_of(model, row[None])) for row in x])
    assert together.shape == x.shape
    torch.testing.assert_close(together, alone)


def test_white_is_what_a_white_picture_becomes():
    model = attrib.wrap(rectified(), preprocessing=Preprocessing(8, 8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5)))
    white = baseline_of("white", question_of(model, pictures(1)))
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor([2.5, 2.4, 1.4], dtype=torch.float64), rtol=1e-6, atol=0)


def test_mean_and_blur_keep_the_mean():
    x = pictures(1, side=16) + 3
    question = question_of(attrib.wrap(rectified()), x)
    assert torch.allclose(baseline_of("mean", question).mean((2, 3)), x.mean((2, 3)))
    blur = baseline_of("blur", question)
    assert blur.std() < 0.5 * x.std() and torch.allclose(blur.mean(), x.mean(), atol=0.1)


def test_wrong_settings_are_named():
    x = pictures(1)
    model = wrapped(smooth(), x)
    with pytest.raises(UnknownName, match="gausslegendre"):
        attrib.explain(model, x, IntegratedGradients(quadrature="gauslegendre"))
    with pytest.raises(UnknownName, match="zero"):
        attrib.explain(model, x, IntegratedGradients(baseline="zeros"))
    with pytest.raises(InputError, match="does not fit"):
        attrib.explain(model, x, IntegratedGradients(baseline=torch.zeros(3, 5, 5)))
    with pytest.raises(InputError, match="nobody knows what white is"):
        attrib.explain(model, x, IntegratedGradients(baseline="white"))
    with pytest.raises(InputError, match="n_steps = 0"):
        attrib.explain(model, x, IntegratedGradients(0))


def test_gradient_shap_of_a_linear_network_is_exact():
    x = pictures(2)
    model = wrapped(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)), x)
    backgrounds = pictures(1, seed=9)
    result = attrib.explain(model, x, GradientSHAP(3, backgrounds), 2)
    weight = model.module[1].weight[2].detach().reshape(3, 8, 8)
    torch.testing.assert_close(result.values, (x - backgrounds) * weight)
    assert result.delta.abs().max() < 1e-10


def test_gradient_shap_nears_integrated_gradients_on_one_baseline():
    x = pictures(1)
    model = wrapped(smooth(), x)
    exact = attrib.explain(model, x, IntegratedGradients(40), 2).values
    estimate = attrib.explain(model, x, GradientSHAP(600, "zero"), 2).values
    assert (estimate - exact).norm() < 0.1 * exact.norm()


def test_gradient_shap_draws_from_the_given_baselines():
    x = pictures(1)
    model = wrapped(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)), x)
    two = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    values = attrib.explain(model, x, GradientSHAP(64, two), 2).values[0]
    weight = model.module[1].weight[2].detach().reshape(3, 8, 8)
    share = ((x[0] - values / weight).flatten()).mean()  # the mean baseline
    assert 0.25 < float(share) < 0.75
    again = attrib.explain(model, x, GradientSHAP(64, two, seed=1), 2).values[0]
    assert not torch.equal(values, again)


def test_a_baseline_that_scores_like_the_input_is_told_of() -> None:
    """The map is scaled to its own strongest pixel, however little there is to explain."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    with torch.no_grad():
        net[1].bias.fill_(1e3)
    for method, told in (("integrated_gradients", True), ("deeplift", True), ("saliency", False)):
        notes = attrib.explain(attrib.wrap(net), torch.rand(2, 3, 2, 2), method, 1).notes
        assert any("the baseline has nearly the score of the input" in note for note in notes) == told
    with torch.no_grad():
        net[1].bias.zero_()
    assert not attrib.explain(attrib.wrap(net), torch.rand(2, 3, 2, 2), "deeplift", 1).notes
