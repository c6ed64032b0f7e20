"""Methods on token embeddings against loops written out here."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from text_subjects import FAMILIES, LONG, NAMES, SHORT, cheap, model, question, score

import attrib
from attrib.methods.baselines import baseline_of
from attrib.methods.units import spread, units


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_padding_gets_nothing_and_changes_nothing(name, family):
    subject = model(family)
    together = attrib.explain(subject, [LONG, SHORT], cheap(name), 1)
    alone = attrib.explain(subject, SHORT, cheap(name), 1)
    n = alone.values.shape[1]
    assert together.kind == alone.kind == "tokens"
    assert together.values.shape[1] > n
    assert (together.values[1, n:] == 0).all()
    torch.testing.assert_close(together.values[1, :n], alone.values[0], rtol=1e-6, atol=1e-9)


def test_gradient_methods_are_sums_and_lengths_over_the_embedding():
    subject = model("bert")
    q = question(subject, LONG)
    _, gradient = q.gradient(q.x)
    torch.testing.assert_close(attrib.explain(subject, LONG, "saliency", 1).values, gradient.norm(dim=2))
    torch.testing.assert_close(attrib.explain(subject, LONG, "input_x_gradient", 1).values, (gradient * q.x).sum(2))


def test_smoothgrad_without_noise_is_the_length_of_the_gradient():
    subject = model("gpt2")
    quiet = attrib.SmoothGrad(n_samples=2, noise_level=0.0)
    smooth, plain = (attrib.explain(subject, LONG, m, 1).values for m in (quiet, "saliency"))
    torch.testing.assert_close(smooth, plain)


@pytest.mark.parametrize("baseline", ["zero", "pad", "mask", "unk"])
def test_integrated_gradients_add_up_to_the_difference(baseline):
    subject = model("bert")
    q = question(subject, LONG)
    result = attrib.explain(subject, LONG, attrib.IntegratedGradients(baseline=baseline), 1)
    difference = score(q, q.x) - score(q, baseline_of(baseline, q))
    torch.testing.assert_close(result.values.sum(1), difference, rtol=1e-6, atol=1e-9)
    assert (result.values[:, [0, -1]] == 0).all()  # [CLS] and [SEP] are their own baseline


def test_a_tolerance_begins_with_few_steps_on_a_smooth_model():
    result = attrib.explain(model("bert"), LONG, attrib.IntegratedGradients(tolerance=1e-3), 1)
    assert "8 steps meet the tolerance of 0.001" in result.notes


@pytest.mark.parametrize("unit", ["word", "token"])
def test_occlusion_is_the_drop_of_every_part(unit):
    subject = model("bert")
    q = question(subject, "The undertakings, wonderful!")
    words = q.words[0]
    assert len({w for w in words if w is not None}) < sum(w is not None for w in words), "no word of two tokens"
    blank = baseline_of("mask", q)
    expected = torch.zeros_like(q.x[:, :, 0])
    for token in (t for t, w in enumerate(words) if w is not None):
        part = [t for t, w in enumerate(words) if w == words[token]] if unit == "word" else [token]
        x = q.x.clone()
        x[:, part] = blank[:, part]
        expected[0, token] = (score(q, q.x) - score(q, x))[0] / len(part)
    found = attrib.explain(subject, "The undertakings, wonderful!", attrib.Occlusion(baseline="mask", unit=unit), 1)
    torch.testing.assert_close(found.values, expected, rtol=1e-6, atol=1e-9)


def test_kernel_shap_is_the_shapley_value_of_words():
    subject, text = model("bert"), "not good music"
    q = question(subject, text)
    (parts,) = units(q, "word")
    blank, n = baseline_of("zero", q), int(parts.max()) + 1
    assert n == 3
    shares = torch.zeros(n, dtype=torch.float64)
    orders = list(permutations(range(n)))
    for order in orders:
        x = blank.clone()
        for part in order:
            before = score(q, x)
            x[0, parts == part] = q.x[0, parts == part]
            shares[part] += (score(q, x) - before)[0] / len(orders)
    found = attrib.explain(subject, text, attrib.KernelSHAP(), 1)
    torch.testing.assert_close(found.values[0], spread(shares, parts), rtol=1e-6, atol=1e-9)


def test_one_word_has_it_all():
    subject = model("bert")
    q = question(subject, "music")
    result = attrib.explain(subject, "music", attrib.KernelSHAP(), 1)
    torch.testing.assert_close(result.values.sum(1), score(q, q.x) - score(q, baseline_of("zero", q)))
