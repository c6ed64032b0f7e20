"""The tasks are what they say: trained quickly, proven, the same from the same seed, and methods can be right."""

from __future__ import annotations

import pytest
import torch

import attrib
from attrib import truth
from attrib.errors import InputError, UnknownName
from attrib.truth.base import ENOUGH


@pytest.fixture(scope="module", params=truth.TASKS)
def made(request):
    return truth.make(request.param, n=12)


def test_the_network_does_what_the_rule_says(made):
    assert made.accuracy >= 0.95
    assert made.proven, "; ".join(map(str, made.proofs))
    assert len(made.proofs) >= 2 and all(proof.share >= ENOUGH for proof in made.proofs)


def test_inputs_are_predicted_rightly_and_have_a_mask_each(made):
    predicted = [row[0].index for row in made.model.predict(made.inputs, k=1)]
    assert predicted == made.targets
    assert len(made.inputs) == len(made.masks) == 12
    assert made.masks.flatten(1).any(1).all() and not made.masks.flatten(1).all(1).any()


def test_the_mask_is_what_the_class_hangs_on(made):
    """Blanking the mask (or taking its words away) changes the prediction, blanking as much elsewhere does not."""
    from attrib.binding import bind
    from attrib.metrics.trial import Trial

    encoded = made.model.encode(made.inputs)
    on = Trial.of(made.model, encoded, bind(made.targets, 12, made.model.index_of), 1)
    blank = torch.full_like(on.x, 0.5) if made.model.kind == "image" else on.blank()
    hidden = on.outputs(1, lambda step, rows: on.mixed(made.masks[rows], on.x[rows], blank[rows]))[0].argmax(1)
    if made.twins is not None:
        hidden = torch.tensor([row[0].index for row in made.model.predict(made.twins, k=1)])
    assert (hidden != torch.tensor(made.targets)).double().mean() >= 0.4
    elsewhere = made.masks.flip(1) & ~made.masks if made.model.kind == "text" else made.masks.roll(12, 2) & ~made.masks
    kept = on.outputs(1, lambda step, rows: on.mixed(elsewhere[rows], on.x[rows], blank[rows]))[0].argmax(1)
    assert (kept == torch.tensor(made.targets)).double().mean() >= 0.7


def test_training_is_repeatable_and_leaves_the_callers_random_state_alone():
    before = torch.get_rng_state()
    first, second = truth.make("two_features", n=12), truth.TASKS["two_features"].make(0, 12)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.inputs, second.inputs) and first.model.weights_hash == second.model.weights_hash


def test_methods_that_look_are_better_than_random_and_edges_are_not_the_truth():
    colour = truth.make("colour_patch", n=12)
    found = truth.score(colour, ["lrp", "grad_cam", attrib.InputXGradient()], n_random=2)
    lines = {(line.method, line.metric): line for line in found.summary()}
    for method in found.methods:
        assert lines[method, "rank_accuracy"].verdict == "better than random"
    assert lines["lrp", "rank_accuracy"].mean > 2 * lines["lrp", "rank_accuracy"].references["edges"]


def test_only_positional_relevance_is_right_where_only_positions_decide():
    """Interventions give positions all; CP-LRP does so too, and AttnLRP gives what its softmax does not keep."""
    task = truth.make("position_only", n=12)
    assert task.on_positions == pytest.approx(1.0, abs=0.01)
    assert truth.position_share(task, "lrp").tolist() == [0.0] * 12
    assert float(truth.position_share(task, attrib.LRP("cp_lrp", positions=True)).mean()) > 0.8
    result = attrib.explain(task.model, task.inputs, attrib.LRP("attn_lrp", positions=True), task.targets)
    content, position = (result.parts[name].abs().sum(1) for name in ("content", "position"))
    assert float((position / (content + position)).mean()) > 0.8
    marked = (result.parts["position"].abs() * task.masks).sum(1) / position
    assert float(marked.mean()) > 0.6


def test_tasks_by_wrong_names_and_without_inputs():
    with pytest.raises(UnknownName, match="colour_patch"):
        truth.make("color_patch")
    with pytest.raises(InputError, match="n = 0"):
        truth.make("negation", n=0)
