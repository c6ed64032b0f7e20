"""Metrics equal Quantus' where they mean the same: arrays stored by make_quantus.py."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import attrib
from attrib.binding import bind
from attrib.metrics.agreement import rank_correlations
from attrib.metrics.base import Subject
from attrib.metrics.localisation import PointingGame, RankAccuracy, RelevanceMass
from attrib.metrics.removal import PixelFlipping
from attrib.metrics.reseeding import reset
from attrib.metrics.road import ROAD
from attrib.metrics.shape import entropy, gini
from attrib.metrics.trial import Trial
from attrib.rules.shadow import shadow

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from quantus_net import SIDE, one_layer, small_net  # noqa: E402


@dataclass(frozen=True)
class Stored:
    arrays: ClassVar[dict[str, torch.Tensor]] = load_file(HERE / "data" / "quantus.safetensors")

    def trial(self) -> Trial:
        model = attrib.wrap(small_net())
        encoded = model.encode(self.arrays["x"])
        made = Trial.of(model, encoded, bind(self.arrays["targets"], len(encoded.x), model.index_of), 1)
        made.masks = self.arrays["masks"][:, 0].bool()
        return made

    def score(self, metric: Any, maps: torch.Tensor) -> Any:
        return metric.score(self.trial(), Subject("stored", maps[:, 0].double(), lambda *_: maps[:, 0]))


@pytest.fixture
def stored() -> Stored:
    return Stored()


def test_pixel_flipping(stored):
    """Theirs flips 12 of 144 pixels a step and leaves the untouched input out, too."""
    found = stored.score(PixelFlipping(pixels_in_step=12, blank="zero"), stored.arrays["maps"])
    np.testing.assert_allclose(found.curve, stored.arrays["pixel_flipping"], atol=1e-6)
    areas = np.trapezoid(stored.arrays["pixel_flipping"].numpy(), dx=1.0, axis=1) / (SIDE * SIDE // 12 - 1)
    np.testing.assert_allclose(found.values, areas, atol=1e-6)


def test_road(stored):
    """Theirs is the share of inputs that are still right, per percentage."""
    found = stored.score(ROAD((10, 30, 50, 70, 90), noise=0.0), stored.arrays["maps"])
    np.testing.assert_allclose(found.curve.mean(0), stored.arrays["road"], atol=1e-6)
    assert 0 < float(stored.arrays["road"].mean()) < 1


def test_sparseness_and_complexity(stored):
    np.testing.assert_allclose(gini(stored.arrays["maps"]), stored.arrays["sparseness"], atol=1e-6)
    np.testing.assert_allclose(entropy(stored.arrays["maps"]), stored.arrays["complexity"], atol=1e-6)


@pytest.mark.parametrize("metric", [RelevanceMass(), RankAccuracy(), PointingGame(tolerance=0.0)])
def test_localisation(stored, metric):
    found = stored.score(metric, stored.arrays["maps"].abs())
    np.testing.assert_allclose(found.values, stored.arrays[metric.name].flatten(), atol=1e-6)


def test_randomisation(stored):
    """The weights that they draw and the correlation that they take; of one layer, as all of theirs share one seed."""
    net, x = one_layer(), stored.arrays["x"]
    twin = shadow(net)
    reset(twin.get_submodule("1"), 43)
    maps = []
    for module in (net, twin):
        leaf = x.clone().requires_grad_()
        score = module(leaf).gather(1, net(x).argmax(1)[:, None]).sum()
        maps.append((x * torch.autograd.grad(score, leaf)[0]).abs()[:, 0].double())
    found = rank_correlations(maps[0], maps[1], torch.ones(len(x), SIDE, SIDE, dtype=torch.bool))
    np.testing.assert_allclose(found, stored.arrays["randomisation"].flatten(), atol=1e-6)
