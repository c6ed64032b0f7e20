"""Class sensitivity against scipy's rank correlation; maps that are constant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_nets import pictures, rectified, wrapped

import attrib
from attrib.class_sensitivity import class_sensitivity, spearman
from attrib.methods.normgrad import NormGrad


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


def test_what_is_no_classifier_of_pictures_is_told():
    with pytest.raises(attrib.UnsupportedModel, match="wrapped"):
        class_sensitivity(rectified(), pictures(), "saliency")
    with pytest.raises(attrib.NotApplicable, match="relp does not apply"):
        class_sensitivity(wrapped(rectified(), pictures()), pictures(), "relp")


def test_class_sensitivity_drops_constant_maps():
    x = pictures(2)
    found = class_sensitivity(wrapped(rectified(), x), x, NormGrad("4", "bias"))
    assert found.correlation.isnan().all() and np.isnan(found.mean)
    assert spearman(np.array([1.0, 1, 2, 3]), np.array([4.0, 4, 5, 6])) == pytest.approx(1)
