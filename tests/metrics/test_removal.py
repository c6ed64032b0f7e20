"""Curves against plain loops, and against the best that any order could reach."""

from __future__ import annotations

import itertools
import math

import contract_nets
import numpy as np
import pytest
import torch
from given import linear, subject, trial
from torch import Tensor

from attrib.metrics import METRICS
from attrib.metrics.curves import UNCHANGED, ranks
from attrib.metrics.generated import ActivationCurve, OutputErrorCurve
from attrib.metrics.removal import Comprehensiveness, Deletion, Insertion, PixelFlipping, Sufficiency


def probability(model, x: Tensor, index: int) -> float:
    return float(model.module(x).softmax(1)[0, index].detach())


def removed(x: Tensor, values: Tensor, count: int, blank: float = 0.0) -> Tensor:
    """x without its `count` highest pixels; values are all different."""
    order = values.flatten().argsort(descending=True)[:count]
    flat = x.clone().flatten(2)
    flat[..., order] = blank
    return flat.reshape(x.shape)


@pytest.fixture
def case():
    model, x = contract_nets.model(), contract_nets.pictures(2)
    maps = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model, x, maps


def test_deletion_is_the_plain_loop(case):
    model, x, maps = case
    found = Deletion(steps=8).score(trial(model, x, 2), subject(maps))
    for i in range(2):
        curve = [probability(model, removed(x[i : i + 1], maps[i], round(256 * k / 8)), 2) for k in range(9)]
        assert found.curve[i].tolist() == pytest.approx(curve, abs=1e-9)
        assert float(found.values[i]) == pytest.approx(np.trapezoid(curve, dx=1 / 8), abs=1e-9)


def test_insertion_is_deletion_backwards(case):
    model, x, maps = case
    found = Insertion(steps=8, blank="zero").score(trial(model, x, 2), subject(maps))
    for i in range(2):
        curve = []
        for k in range(9):
            shown = x[i : i + 1] - removed(x[i : i + 1], maps[i], round(256 * k / 8))
            curve.append(probability(model, shown, 2))
        assert found.curve[i].tolist() == pytest.approx(curve, abs=1e-9)


def test_pixel_flipping_leaves_the_untouched_input_out_and_flips_the_rest_last(case):
    model, x, maps = case
    found = PixelFlipping(pixels_in_step=100).score(trial(model, x, 1), subject(maps))
    curve = [probability(model, removed(x[:1], maps[0], count), 1) for count in (100, 200, 256)]
    assert found.curve[0].tolist() == pytest.approx(curve, abs=1e-9)
    assert float(found.values[0]) == pytest.approx(np.trapezoid(curve, dx=0.5), abs=1e-9)


def test_comprehensiveness_and_sufficiency_are_the_plain_loops(case):
    model, x, maps = case
    shares = (0.01, 0.2, 0.5)
    whole = probability(model, x[:1], 3)
    without = [removed(x[:1], maps[0], math.ceil(256 * s)) for s in shares]
    found = Comprehensiveness(shares).score(trial(model, x, 3), subject(maps))
    assert float(found.values[0]) == pytest.approx(np.mean([whole - probability(model, w, 3) for w in without]))
    found = Sufficiency(shares).score(trial(model, x, 3), subject(maps))
    alone = [whole - probability(model, x[:1] - w, 3) for w in without]
    assert float(found.values[0]) == pytest.approx(np.mean(alone))


@pytest.mark.parametrize(
    "metric", [Deletion(steps=6), Insertion(steps=6, blank="zero"), PixelFlipping(1), Comprehensiveness((0.34, 0.5)),
               Sufficiency((0.34, 0.5))],
)  # fmt: skip
def test_the_right_map_of_a_linear_model_gets_the_best_score_of_all_orders(metric):
    model, right = linear(2, 3)
    on = trial(model, torch.ones(1, 1, 2, 3, dtype=torch.float64))
    sign = 1 if METRICS[metric.name].better == "higher" else -1
    orders = [torch.tensor(order, dtype=torch.float64).reshape(1, 2, 3) for order in itertools.permutations(range(6))]
    scores = [sign * float(metric.score(on, subject(order)).values) for order in orders[::5]]
    best = sign * float(metric.score(on, subject(right)).values)
    assert best >= max(scores) - 1e-12
    assert best > np.median(scores) + 1e-3


def test_equal_values_fall_in_random_order_and_not_from_the_top():
    flat = torch.zeros(1, 20, 20, dtype=torch.float64)
    flat[0, 10:, 10:] = 1.0
    ties = torch.rand(20, 20, generator=torch.Generator().manual_seed(0))
    order = ranks(flat, torch.ones(1, 20, 20, dtype=torch.bool), ties)
    assert sorted(order.flatten().tolist()) == list(range(400))
    assert order[0, 10:, 10:].max() == 99
    rest = order[0][flat[0] == 0].double()
    assert abs(float(np.corrcoef(rest, np.arange(len(rest)))[0, 1])) < 0.2


def test_a_model_that_never_changes_gets_words_instead_of_a_number():
    from given import Still

    import attrib

    on = trial(attrib.wrap(Still()), torch.ones(1, 3, 8, 8))
    for metric in (Deletion(4), Insertion(4), PixelFlipping(20), Comprehensiveness(), Sufficiency()):
        found = metric.score(on, subject(torch.rand(1, 8, 8)))
        assert math.isnan(found.values[0])
        assert found.words == (UNCHANGED,)


class TestTexts:
    TEXTS = ("the film was not good at all", "great")

    @pytest.fixture
    def model(self):
        from tiny_text import classifier

        return classifier()

    def outputs(self, model, ids: list[int]) -> Tensor:
        with torch.no_grad():
            return model.module(input_ids=torch.tensor([ids])).logits[0].double()

    @pytest.mark.parametrize("order", ["generate", "prune"])
    @pytest.mark.parametrize("ranking", ["signed", "absolute"])
    def test_au_ac_and_au_mse_are_the_plain_loops(self, model, order, ranking):
        model.module.double()
        on = trial(model, list(self.TEXTS), 1)
        maps = torch.randn(on.allowed.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        ac = ActivationCurve(order, ranking).score(on, subject(maps))
        mse = OutputErrorCurve(order, ranking).score(on, subject(maps))
        for i, text in enumerate(self.TEXTS):
            ids = model.tokenizer(text)["input_ids"]
            inside = list(range(1, len(ids) - 1))  # not [CLS], not [SEP]
            values = maps[i].abs() if ranking == "absolute" else maps[i]
            best_first = sorted(inside, key=lambda t: -float(values[t]))
            probabilities, errors = [], []
            for tenth in range(11):
                n = math.ceil(tenth * len(inside) / 10)
                kept = set(best_first[:n]) if order == "generate" else set(best_first[: len(inside) - n])
                shown = [t if k not in inside or k in kept else model.tokenizer.unk_token_id for k, t in enumerate(ids)]
                logits = self.outputs(model, shown)
                probabilities.append(float(logits.softmax(0)[1]))
                errors.append(float((logits - self.outputs(model, ids)).square().sum()))
            assert float(ac.values[i]) == pytest.approx(np.trapezoid(probabilities, dx=0.1), abs=1e-12)
            assert float(mse.values[i]) == pytest.approx(np.trapezoid(errors, dx=0.1), abs=1e-12)

    def test_special_tokens_never_go(self, model):
        on = trial(model, list(self.TEXTS), 1)
        assert on.allowed.sum(1).tolist() == [7, 1]
        order = ranks(torch.rand(on.allowed.shape), on.allowed, on.drawn(3))
        assert int(order[1].min()) == 0 and sorted(order[0].tolist())[:7] == list(range(7))
