"""Randomised twins: other seeds per layer, nothing left on the model; guided backprop fails, gradients pass."""

from __future__ import annotations

import contract_nets
import numpy as np
import pytest
import torch
from torch import nn

import attrib
from attrib.binding import bind
from attrib.metrics import checking
from attrib.metrics.evidence import WEIGHTS
from attrib.metrics.randomisation import ClassSensitivity, ParameterRandomisation, RandomLogit
from attrib.metrics.reseeding import Draw, cascading, layers_of, one_by_one, reset, seed_of
from attrib.metrics.stacking import maps_of
from attrib.metrics.subjects import subject_of
from attrib.metrics.trial import Trial
from attrib.rules.shadow import shadow


@pytest.mark.parametrize(
    "make", [lambda: nn.Conv2d(3, 4, 3), lambda: nn.Linear(3, 4), lambda: nn.BatchNorm2d(5), lambda: nn.Embedding(4, 3),
             lambda: nn.GRU(3, 4), lambda: nn.LayerNorm(6)],
)  # fmt: skip
def test_weights_are_those_of_reset_parameters_with_that_seed(make):
    """So that results can be compared with Quantus', which seeds the global generator."""
    torch.manual_seed(1)  # weights that are the drawn ones already would be shuffled
    ours, theirs = make(), make()
    torch.manual_seed(43)
    theirs.reset_parameters()
    before = torch.get_rng_state()
    twin = shadow(ours)
    reset(twin, 43)
    for name, weight in theirs.named_parameters():
        assert torch.equal(getattr(twin, name), weight), name
    assert torch.equal(before, torch.get_rng_state())


def test_layers_of_one_shape_get_different_weights_and_what_has_no_recipe_is_shuffled():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
            self.own = nn.Parameter(torch.arange(20.0))

    module = Two()
    assert layers_of(module) == ["second", "first", ""]
    last = cascading(3, 3)[-1]
    twin = Draw(module, 0).twin(last.layers)
    assert last.share == 1.0
    assert not torch.equal(twin.first.weight, twin.second.weight)
    assert not torch.equal(twin.own, module.own) and sorted(twin.own.tolist()) == list(range(20))


def test_a_cascade_keeps_what_was_random_and_one_by_one_does_not():
    module = contract_nets.network()
    paths = layers_of(module)

    def changed(twin: nn.Module) -> list[bool]:
        return [not torch.equal(twin.get_submodule(p).weight, module.get_submodule(p).weight) for p in paths]

    draw = Draw(module, 0)
    cascaded = [changed(draw.twin(stage.layers)) for stage in cascading(len(paths), 5)]
    assert [sum(row) for row in cascaded] == sorted(sum(row) for row in cascaded) and all(cascaded[-1])
    alone = [changed(draw.twin(stage.layers)) for stage in one_by_one(len(paths), 5)]
    assert [sum(column) for column in zip(*alone, strict=True)] == [1] * len(paths)
    assert len({seed_of(0, layer) for layer in range(50)}) == 50


def test_nothing_is_left_on_the_model():
    model = contract_nets.model()
    before = contract_nets.state_of(model.module)
    attrib.evaluate(
        model, contract_nets.pictures(2), ["saliency", "guided_backprop"],
        [ParameterRandomisation(stages=3, draws=1), RandomLogit(), ClassSensitivity()], n_random=1,
    )  # fmt: skip
    after = contract_nets.state_of(model.module)
    assert before.keys() == after.keys()
    assert all(before[key] == after[key] for key in before)


def test_guided_backprop_fails_on_a_trained_network_and_gradients_pass(squeezenet, photos):
    """Squeezenet has plain ReLUs. Adebayo et al. 2018; Nie et al. 2018."""
    pictures = [photos[name] for name in ("cheetah", "lion")]
    found = attrib.evaluate(
        squeezenet, pictures, ["saliency", "input_x_gradient", "guided_backprop"],
        [ParameterRandomisation(), ClassSensitivity()], n_random=1,
    )  # fmt: skip
    means = {(line.method, line.metric): line.mean for line in found.summary()}
    for method in ("saliency", "input_x_gradient"):
        assert means[method, "parameter_randomisation"] < 0.5
        assert means[method, "class_sensitivity"] < 0.6
    assert means["guided_backprop", "parameter_randomisation"] > 0.55
    assert means["guided_backprop", "class_sensitivity"] > 0.9
    line = next(line for line in found.summary() if line.metric == "parameter_randomisation")
    # what does not ask the model is its own copy, up to the rounding of a correlation
    assert [line.references[name] for name in ("edges", "centre")] == [pytest.approx(1.0), pytest.approx(1.0)]
    assert abs(line.references["random"]) < 0.05


def test_independent_layers_are_averaged():
    model, x = contract_nets.model(), contract_nets.pictures(2)
    found = attrib.evaluate(model, x, "saliency", ParameterRandomisation("independent", stages=4), n_random=0)
    for row in found.rows:
        assert row.value == pytest.approx(np.nanmean(row.curve))
        assert len(row.curve) == 4


@pytest.mark.parametrize("name", ["saliency", "input_x_gradient", "guided_backprop", "deconvnet"])
@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_networks_stacked_give_the_maps_of_each(name, order):
    model, x = contract_nets.model(), contract_nets.pictures(3)
    metric, passes = ParameterRandomisation(order, stages=5, draws=2), []
    handle = model.module.head.register_forward_hook(lambda *_: passes.append(1))
    try:
        together = attrib.evaluate(model, x, name, metric, [0, 1, 2], n_random=0, max_memory=2**30)
        few = len(passes)
        alone = attrib.evaluate(model, x, name, metric, [0, 1, 2], n_random=0, max_memory=1)
    finally:
        handle.remove()
    assert few < len(passes) - few
    for one, other in zip(together.rows, alone.rows, strict=True):
        assert one.curve == pytest.approx(other.curve, abs=1e-9)
        assert len(one.curve) == 5 and len(set(one.curve)) > 1


def test_what_does_not_stack_is_explained_network_by_network():
    """Weights that are read past their layer, layers that do not keep rows first, parameters outside of layers."""

    class Transposed(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x.flatten(2).transpose(0, 1)).transpose(0, 1).mean(1))

    class Own(nn.Sequential):
        def __init__(self, *layers: nn.Module) -> None:
            super().__init__(*layers)
            self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 3))

        def forward(self, x):
            return super().forward(x * self.scale[:, None, None])

    torch.manual_seed(0)
    nets = [
        Transposed(nn.Linear(64, 8), nn.Linear(8, 4)),
        Own(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)),
        contract_nets.Functional(),
    ]
    for net in nets:
        model, x = attrib.wrap(net.double()), torch.rand(2, 3, 8, 8, dtype=torch.float64)
        trial = Trial.of(model, model.encode(x), bind([0, 1], 2, model.index_of), 0)
        draw, stages = Draw(net, 3), cascading(2, 2)
        subject = subject_of(trial, attrib.Saliency(), attrib.explain(model, x, "saliency", [0, 1]))
        for stage, maps in zip(stages, maps_of(trial, subject, draw, stages), strict=True):
            other = attrib.wrap(draw.twin(stage.layers))
            expected = attrib.explain(other, x, "saliency", [0, 1]).values.amax(1)
            torch.testing.assert_close(maps, expected)


def test_the_light_on_weights_tells_guided_backprop_from_gradients(efficientnet, squeezenet, photos, monkeypatch):
    """EfficientNet has ReLU6, and as a whole random it passes nothing on: its last stage must not speak for it."""
    monkeypatch.setattr(checking, "_JUDGES", {WEIGHTS: checking._weights})
    for model in (efficientnet, squeezenet):
        found = {}
        for name in ("saliency", "input_x_gradient", "guided_backprop"):
            result = attrib.explain(model, photos["cheetah"], name)
            found[name] = attrib.check(model, photos["cheetah"], result).light(WEIGHTS)
        assert [light.verdict for light in found.values()] == ["passes", "passes", "fails"]
        assert max(found["saliency"].value, found["input_x_gradient"].value) < 0.65  # no close calls
        assert found["guided_backprop"].value > 0.8
        assert found["guided_backprop"].value == max(found["guided_backprop"].curves["rank correlation"])
