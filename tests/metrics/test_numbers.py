"""Metrics that need no curve: plain formulas, hand-made masks, dense solves, captum."""

from __future__ import annotations

import math

import contract_nets
import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max
from given import linear, subject, trial

import attrib
from attrib.errors import InputError
from attrib.metrics.agreement import rank_correlations, top_overlaps
from attrib.metrics.fidelity import Infidelity, RobustFidelity, regions
from attrib.metrics.localisation import EMPTY, IoU, PointingGame, RankAccuracy, RelevanceMass, masks_of
from attrib.metrics.randomisation import MaxSensitivity
from attrib.metrics.road import ROAD, imputed
from attrib.metrics.shape import Complexity, Recovery, Sparseness, entropy, gini
from attrib.metrics.statistics import among, interval, sign_flip
from attrib.metrics.summary import Row, summarised


def test_gini_is_the_mean_difference_of_all_pairs():
    values = torch.randn(2, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for row, found in zip(values.abs() / values.abs().amax(1, keepdim=True) + 1e-7, gini(values), strict=True):
        pairs = (row[:, None] - row[None]).abs().sum() / (2 * len(row) * row.sum())
        assert float(found) == pytest.approx(float(pairs), abs=1e-9)
    assert float(gini(torch.ones(1, 30))) == pytest.approx(0, abs=1e-9)
    assert float(gini(torch.eye(1, 1000, dtype=torch.float64))) > 0.99


def test_entropy_is_log_n_for_equal_values():
    assert float(entropy(torch.full((1, 50), 3.0))) == pytest.approx(math.log(50), abs=1e-6)
    assert float(entropy(torch.eye(1, 50))) == pytest.approx(0, abs=1e-6)


def test_recovery_finds_the_picture_and_only_the_picture():
    x = contract_nets.pictures(2)
    on = trial(contract_nets.model(), x)
    assert Recovery().score(on, subject(x.mean(1))).values.tolist() == pytest.approx([1.0, 1.0])
    assert float(Recovery().score(on, subject(torch.rand(2, 16, 16))).values.max()) < 0.3
    for metric in (Sparseness(), Complexity()):
        assert metric.score(on, subject(x.mean(1))).values.isfinite().all()


class TestMasks:
    MAP = torch.tensor([[[9.0, 8.0, 1.0, -5.0], [0.0, 7.0, 0.0, 0.0], [0.0] * 4, [0.0, 0.0, 0.0, 6.0]]])

    def scores(self, metric, mask: torch.Tensor) -> float:
        model, _ = linear(4, 4)
        on = trial(model, torch.ones(1, 1, 4, 4, dtype=torch.float64), masks=mask)
        return float(metric.score(on, subject(self.MAP)).values)

    def test_by_hand(self):
        mask = masks_of([(0, 0, 2, 2)], (1, 4, 4))  # the four pixels on the top left: 9, 8, 0, 7
        assert self.scores(RelevanceMass(), mask) == pytest.approx(24 / 31)
        assert self.scores(RelevanceMass("absolute"), mask) == pytest.approx(24 / 36)
        assert self.scores(RankAccuracy(), mask) == 0.75
        assert self.scores(IoU(), mask) == pytest.approx(3 / 5)  # above the mean 1.6: 9, 8, 7, 6
        assert self.scores(PointingGame(tolerance=0), mask) == 1.0

    def test_the_pointing_game_forgives_less_than_its_tolerance(self):
        far = masks_of([(3, 0, 4, 1)], (1, 4, 4))  # three pixels from the highest point
        assert self.scores(PointingGame(tolerance=3.0), far) == 0.0
        assert self.scores(PointingGame(tolerance=3.1), far) == 1.0

    def test_an_empty_mask_gets_words(self):
        model, _ = linear(4, 4)
        on = trial(model, torch.ones(1, 1, 4, 4, dtype=torch.float64), masks=torch.zeros(1, 4, 4, dtype=torch.bool))
        for metric in (RelevanceMass(), RankAccuracy(), IoU(), PointingGame()):
            found = metric.score(on, subject(self.MAP))
            assert math.isnan(found.values[0]) and found.words == (EMPTY,)

    @pytest.mark.parametrize(
        "masks", [np.zeros((1, 5, 4)), [np.zeros((4, 4)), np.zeros((4, 4))], [(0, 0, 9, 9)], [(2, 2, 2, 3)], "mask"]
    )
    def test_masks_that_do_not_fit_are_named(self, masks):
        with pytest.raises(InputError, match=r"mask|box"):
            masks_of(masks, (1, 4, 4))

    def test_a_box_on_a_text_is_told_as_one(self):
        with pytest.raises(InputError, match=r"a box is for pictures; of texts of 7 tokens give masks \(1, 7\)"):
            masks_of([(0, 0, 3, 3)], (1, 7))
        assert masks_of([(0, 0, 1, 1)], (1, 4)).tolist() == [[False, False, True, True]]  # four tokens

    def test_a_single_mask_is_for_all(self):
        assert masks_of(np.eye(4), (3, 4, 4)).shape == (3, 4, 4)


def test_imputed_pixels_solve_the_dense_system():
    random = np.random.default_rng(0)
    picture, gone = random.standard_normal((2, 6, 7)), random.random((6, 7)) < 0.5
    filled = imputed(picture, gone)
    weights = {(a, b): 1 / 6 if abs(a) + abs(b) == 1 else 1 / 12 for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b}
    for r, c in zip(*gone.nonzero(), strict=True):
        around = {(r + a, c + b): w for (a, b), w in weights.items() if 0 <= r + a < 6 and 0 <= c + b < 7}
        mean = sum(w * filled[:, y, x] for (y, x), w in around.items()) / sum(around.values())
        assert filled[:, r, c] == pytest.approx(mean, abs=1e-9)
    assert (filled[:, ~gone] == picture[:, ~gone]).all()
    assert imputed(picture, np.ones((6, 7), dtype=bool)) == pytest.approx(
        picture.mean((1, 2))[:, None, None] + 0 * picture
    )


def test_road_counts_how_often_the_class_stays():
    model, x = contract_nets.model(), contract_nets.pictures(2)
    maps = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    on = trial(model, x, None)
    found = ROAD((20, 60), noise=0.0).score(on, subject(maps))
    for i in range(2):
        order = (-maps[i]).flatten().argsort().argsort().reshape(16, 16)
        stays = []
        for share in (0.2, 0.6):
            filled = imputed(x[i].numpy(), (order < int(256 * share)).numpy())
            stays.append(float(model.module(torch.from_numpy(filled)[None]).argmax() == on.target.positive[i]))
        assert found.curve[i].tolist() == stays
    with pytest.raises(InputError, match="percentages"):
        ROAD((0,)).score(on, subject(maps))


def test_the_right_map_of_a_linear_model_has_no_infidelity_and_a_random_one_has():
    model, right = linear(8, 8)
    on = trial(model, torch.ones(1, 1, 8, 8, dtype=torch.float64))
    metric = Infidelity(n_samples=12, n_regions=16)
    assert float(metric.score(on, subject(right)).values) < 1e-12
    random = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(metric.score(on, subject(random)).values) > 1e-4


def test_infidelity_is_the_plain_formula():
    model, x = contract_nets.model(), contract_nets.pictures(2)
    maps = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    on, metric = trial(model, x, 1), Infidelity(n_samples=5, n_regions=9)
    found, parts = metric.score(on, subject(maps)).values, regions(on, "grid", 9)
    for i in range(2):
        gone = [metric._set(on, parts[i], draw) for draw in range(5)]
        dots = torch.stack([maps[i][g].sum() for g in gone])
        falls = torch.stack(
            [model.module(x[i : i + 1])[0, 1] - model.module(x[i : i + 1] * ~g)[0, 1] for g in gone]
        ).detach()
        beta = (dots * falls).mean() / dots.square().mean()
        assert float(found[i]) == pytest.approx(float((beta * dots - falls).square().mean()), rel=1e-6)


def test_robust_fidelity_at_its_borders():
    """α₁ = 0 removes nothing for Fid₊, α₂ = 0 nothing for Fid₋; at 1 both are the plain fidelities."""
    model, right = linear(8, 8)
    on = trial(model, torch.ones(1, 1, 8, 8, dtype=torch.float64))
    plus, minus = RobustFidelity(0.0, 0.0, n_samples=3, n_regions=16).both(on, subject(right))
    assert (float(plus), float(minus)) == (0.0, 0.0)
    metric = RobustFidelity(1.0, 1.0, share=0.25, n_samples=2, n_regions=16)
    plus, minus = metric.both(on, subject(right))
    parts = regions(on, "superpixels", 16)[0]
    means = torch.stack([right[0][parts == p].mean() for p in range(int(parts.max()) + 1)])
    top = torch.isin(parts, means.argsort(descending=True)[: max(1, round(0.25 * len(means)))])
    whole = torch.tensor([1.0, 0.0]).softmax(0)[0].item()
    left = float(torch.stack([right[0][~top].sum(), torch.tensor(0.0)]).softmax(0)[0])
    kept = float(torch.stack([right[0][top].sum(), torch.tensor(0.0)]).softmax(0)[0])
    assert float(plus) == pytest.approx(whole - left, abs=1e-6)
    assert float(minus) == pytest.approx(whole - kept, abs=1e-6)


def test_max_sensitivity_is_captums_for_the_same_noise():
    """A picture of one channel whose range is 1, so that the radius is captum's."""
    model, _ = linear(8, 8)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (x - x.amin((1, 2, 3), keepdim=True)) / (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    on, metric = trial(model, x), MaxSensitivity(radius=0.05, n_samples=4)
    method = attrib.InputXGradient()
    on_method = subject(on.explained(method, model, x, on.target))
    on_method = type(on_method)("x", on_method.maps, lambda m, moved, target: on.explained(method, m, moved, target))
    found = metric.score(on, on_method).values
    weights = model.module.weights.detach()
    draws = [0.05 * torch.from_numpy(2 * on.random(9, d).random((1, 8, 8)) - 1) for d in range(4)]
    moved = lambda inputs, radius: (torch.cat([inputs[i : i + 1] + draws[i % 4] for i in range(len(inputs))]),)  # noqa: E731
    theirs = sensitivity_max(lambda inputs: (inputs[0] * weights,), (x,), moved, n_perturb_samples=4)
    assert found.tolist() == pytest.approx(theirs.tolist(), rel=1e-6)


def test_agreement():
    a = torch.arange(20.0).reshape(1, 4, 5)
    everywhere = torch.ones(1, 4, 5, dtype=torch.bool)
    assert float(rank_correlations(a, a.exp(), everywhere)) == pytest.approx(1.0)
    assert float(rank_correlations(a, -a, everywhere)) == pytest.approx(-1.0)
    assert math.isnan(rank_correlations(a, torch.zeros(1, 4, 5), everywhere)[0])
    assert float(top_overlaps(a, a, everywhere, 0.25)) == 1.0 and float(top_overlaps(a, -a, everywhere, 0.25)) == 0.0


def test_the_sign_flip_test_counts_all_signs():
    gains = np.array([0.3, 0.1, 0.2, -0.05])
    means = [np.mean(gains * s) for s in np.array(np.meshgrid(*[(1, -1)] * 4)).reshape(4, -1).T]
    assert sign_flip(gains, 0) == pytest.approx(np.mean(np.array(means) >= gains.mean() - 1e-12))
    assert sign_flip(np.ones(30), 0) < 0.001 < 0.999 < sign_flip(-np.ones(30), 0)
    assert sign_flip(gains[:2], 0) is None and interval(gains[:2], 0.95, 0) is None
    low, high = interval(np.random.default_rng(0).normal(1.0, 1.0, 400), 0.95, 0)
    assert low < 1.0 < high and high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert among(1.0, np.zeros(19)) == 0.05 and among(0.0, np.ones(19)) == 1.0


@pytest.mark.parametrize(
    ("inputs", "verdict"), [(4, "too few inputs for a verdict: with 4 no p is below 0.062"), (5, "better than random")]
)
def test_no_verdict_that_no_map_could_have_got(inputs, verdict):
    rows = [Row(i, "m", "deletion", 0.1 * i, {"random": 1.0 + i}) for i in range(inputs)]
    assert summarised(rows, "lower", 0.95, 0).verdict == verdict
