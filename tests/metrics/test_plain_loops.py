"""What asks the model about other weights, classes or remains, against loops that say it in plain torch and scipy."""

from __future__ import annotations

import contract_nets
import numpy as np
import pytest
import torch
from given import trial
from scipy.stats import pearsonr, rankdata, spearmanr
from torch import Tensor

import attrib
from attrib.metrics.fidelity import RobustFidelity, regions

NAMES = ("saliency", "input_x_gradient")


@pytest.fixture
def case():
    return contract_nets.model(), contract_nets.pictures(3)


def plain(model, name: str, x: Tensor, classes: Tensor) -> Tensor:
    """(batch, height, width): the map of these classes by autograd."""
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model.module(leaf).gather(1, classes[:, None]).sum(), leaf)
    return g.abs().amax(1) if name == "saliency" else (x * g).sum(1)


def values(model, x: Tensor, name: str, metric, target=None) -> list[float]:
    return [row.value for row in attrib.evaluate(model, x, name, metric, target, n_random=0).rows]


def spearman(a: Tensor, b: Tensor) -> list[float]:
    return [spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(a.numpy(), b.numpy(), strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_class_sensitivity_is_the_correlation_of_the_best_and_the_worst_class(case, name):
    model, x = case
    logits = model.module(x)
    expected = spearman(plain(model, name, x, logits.argmax(1)), plain(model, name, x, logits.argmin(1)))
    assert values(model, x, name, "class_sensitivity") == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_random_logit_is_one_of_the_other_classes_and_never_the_own(case, name):
    model, x = case
    own = model.module(x).argmax(1)
    classes = model.module(x).shape[1]
    others = [
        spearman(plain(model, name, x, own), plain(model, name, x, (own + k) % classes)) for k in range(1, classes)
    ]
    for i, found in enumerate(values(model, x, name, "random_logit")):
        assert min(abs(found - each[i]) for each in others) < 1e-6
        assert found < 1 - 1e-6


def test_completeness_is_what_the_sum_leaves_of_the_score(case):
    model, x = case
    logits = model.module(x).detach()
    top = logits.argmax(1)
    score = logits.gather(1, top[:, None])[:, 0]
    left = plain(model, "input_x_gradient", x, top).sum((1, 2)) - score
    assert values(model, x, "input_x_gradient", "completeness") == pytest.approx(
        (left / score).abs().tolist(), abs=1e-6
    )


def test_recovery_is_pearsons_correlation_with_the_input(case):
    model, x = case
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model.module(leaf).amax(1).sum(), leaf)
    expected = [abs(pearsonr((x * g)[i].ravel().numpy(), x[i].ravel().numpy()).statistic) for i in range(len(x))]
    assert values(model, x, "input_x_gradient", "recovery") == pytest.approx(expected, abs=1e-6)


def test_randomisation_is_the_correlation_with_the_network_of_drawn_weights(case):
    """One stage: every layer is drawn, each by its own reset_parameters and seed, which Quantus' parity shows."""
    from attrib.metrics.randomisation import ParameterRandomisation
    from attrib.metrics.reseeding import Draw, layers_of, seed_of

    model, x = case
    top = model.module(x).argmax(1)
    twin = Draw(model.module, seed_of(0, -1)).twin(range(len(layers_of(model.module))))
    own, random = plain(model, "saliency", x, top), plain(attrib.wrap(twin), "saliency", x, top)
    found = values(model, x, "saliency", ParameterRandomisation(stages=1, draws=1), top.tolist())
    assert found == pytest.approx(spearman(own, random), abs=1e-6)


def test_robust_fidelity_is_the_plain_loop(case):
    model, x = case
    metric, on = RobustFidelity(0.3, 0.7, n_samples=6, n_regions=12), trial(model, x, None)
    top = model.module(x).argmax(1)
    maps, parts = plain(model, "saliency", x, top), regions(on, "superpixels", 12)

    def probability(i: int, gone: np.ndarray) -> float:
        kept = x[i : i + 1] * torch.from_numpy(~gone)
        return float(model.module(kept).softmax(1)[0, top[i]].detach())

    expected = []
    for i in range(len(x)):
        places, n = parts[i].numpy(), int(parts[i].max()) + 1
        means = np.array([maps[i].numpy()[places == p].mean() for p in range(n)])
        chosen = rankdata(-means) <= max(1, round(0.2 * n))
        whole = probability(i, np.zeros_like(places, dtype=bool))

        def falls(first: int, of: np.ndarray, alpha: float, i=i, places=places, n=n, whole=whole) -> float:
            drawn = [of & (np.random.default_rng((0, 7, first + k)).random(n) < alpha) for k in range(6)]
            return float(np.mean([whole - probability(i, gone[places]) for gone in drawn]))

        expected.append(falls(1, chosen, 0.3) - falls(7, ~chosen, 0.7))
    assert values(model, x, "saliency", metric) == pytest.approx(expected, abs=1e-6)
