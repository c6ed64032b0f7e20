"""The driver: every metric on every kind of model, beside references, deterministic, and clear about what is wrong."""

from __future__ import annotations

import dataclasses
import json
import math

import contract_nets
import numpy as np
import pytest
import torch
from given import Given, Still, linear, subject, trial

import attrib
from attrib.errors import Cancelled, InputError, NotApplicable, UnknownName
from attrib.metrics import METRICS, metric_named
from attrib.metrics.curves import UNCHANGED
from attrib.metrics.evaluate import cost
from attrib.metrics.evaluation import Evaluation
from attrib.metrics.joining import joined
from attrib.metrics.scoring import BROKEN, CONSTANT

TEXTS = ["the film was not good at all", "great", "bad food in paris"]
_CHEAP = {
    "steps": 3,
    "n_samples": 3,
    "stages": 2,
    "draws": 2,
    "pixels_in_step": 64,
    "n_regions": 9,
    "percentages": (30, 70),
}


def cheap(name: str):
    metric = METRICS[name]()
    fields = {field.name for field in dataclasses.fields(metric)}
    return dataclasses.replace(metric, **{k: v for k, v in _CHEAP.items() if k in fields})


def of(kind: str) -> list[str]:
    return [name for name, cls in METRICS.items() if kind in cls.applies_to]


@pytest.fixture(scope="module")
def texts():
    from tiny_text import classifier

    return classifier()


@pytest.fixture(scope="module")
def pictures():
    x = contract_nets.pictures(3)
    masks = torch.zeros(3, 16, 16)
    masks[:, 4:9, 4:9] = 1
    return contract_nets.model(), x, masks


@pytest.mark.parametrize("name", of("image"))
def test_every_metric_of_pictures(name, pictures):
    model, x, masks = pictures
    found = attrib.evaluate(model, x, ["saliency", "lrp"], cheap(name), masks=masks, n_random=1)
    assert len(found.rows) == 6 and found.methods == ("saliency", "lrp") and found.metrics == (name,)
    for row in found.rows:
        assert math.isfinite(row.value) or row.words
    assert any(math.isfinite(row.value) for row in found.rows)
    wanted = {"random", "random_regions", "centre", "edges"} if METRICS[name].of_references else set()
    assert set(found.rows[0].references) == wanted
    lines = found.summary()
    assert [line.inputs for line in lines] == [
        sum(math.isfinite(v) for v in found.values(m, name)) for m in found.methods
    ]


@pytest.mark.parametrize("name", of("text"))
def test_every_metric_of_texts(name, texts):
    masks = torch.zeros(3, 9)
    masks[:, 1] = 1
    found = attrib.evaluate(texts, TEXTS, ["saliency", attrib.LRP("attn_lrp")], cheap(name), masks=masks, n_random=2)
    assert len(found.rows) == 6
    assert any(math.isfinite(row.value) for row in found.rows)
    assert set(found.rows[0].references) == ({"random", "centre"} if METRICS[name].of_references else set())


@pytest.mark.parametrize("name", ["deletion", "comprehensiveness", "robust_fidelity", "infidelity", "max_sensitivity"])
def test_the_same_alone_as_in_a_batch_in_any_chunks_and_twice(name, pictures, texts):
    for model, inputs in ((pictures[0], pictures[1]), (texts, TEXTS)):
        batch = attrib.evaluate(model, inputs, "input_x_gradient", cheap(name), target=1, n_random=2, seed=4)
        again = attrib.evaluate(
            model, inputs, "input_x_gradient", cheap(name), target=1, n_random=2, seed=4, max_memory=1
        )
        alone = attrib.evaluate(model, inputs[1:2], "input_x_gradient", cheap(name), target=1, n_random=2, seed=4)
        for one, other in ((batch.rows, again.rows), (batch.rows[1:2], alone.rows)):
            for a, b in zip(one, other, strict=True):
                assert b.value == pytest.approx(a.value, rel=1e-4, abs=1e-6, nan_ok=True)
                assert b.references == pytest.approx(a.references, rel=1e-4, abs=1e-6, nan_ok=True)


def test_float32_and_float64_rank_methods_alike():
    methods = ["saliency", "input_x_gradient", "lrp", "grad_cam", "integrated_gradients"]
    orders = []
    for dtype in (torch.float32, torch.float64):
        model, x = contract_nets.model(dtype=dtype), contract_nets.pictures(3, dtype=dtype)
        found = attrib.evaluate(model, x, methods, ["deletion", "comprehensiveness"], target=2, n_random=0)
        orders.append(
            [np.argsort([found.values(m, metric).mean() for m in methods]).tolist() for metric in found.metrics]
        )
    assert orders[0] == orders[1]


def test_the_right_map_beats_random_ones_and_a_random_one_does_not():
    model, right = linear(12, 12)
    x = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    random = torch.rand(8, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    metrics = ["deletion", attrib.metrics.removal.Insertion(blank="zero"), "comprehensiveness"]
    found = attrib.evaluate(model, x, [Given(right * x[:, 0]), Given(random)], metrics, target=0)
    assert found.methods == ("given", "given_2")
    for line in found.summary():
        assert line.verdict == ("better than random" if line.method == "given" else "not better than random"), line


def test_random_maps_are_no_measure_where_they_are_best_by_construction():
    model, x = contract_nets.model(), contract_nets.pictures(4)
    metrics = ["random_logit", "class_sensitivity", "recovery", "parameter_randomisation"]
    for line in attrib.evaluate(model, x, ["saliency"], metrics, target=2, n_random=2).summary():
        assert "by construction" in line.verdict and line.p == {}, line
        assert abs(line.references["random"]) < 0.5  # the score itself stands beside it all the same


def test_bad_maps_get_words(pictures):
    model, x, masks = pictures
    broken = torch.rand(3, 16, 16)
    broken[1, 0, 0] = math.nan
    metrics = ["deletion", "pointing_game", "sparseness", "class_sensitivity"]
    found = attrib.evaluate(model, x, [Given(torch.ones(3, 16, 16)), Given(broken)], metrics, masks=masks, n_random=1)
    said = {(row.method, row.metric, row.input): row for row in found.rows}
    assert said["given", "deletion", 0].words == said["given", "pointing_game", 2].words == CONSTANT
    assert math.isfinite(said["given", "sparseness", 0].value)
    assert said["given_2", "deletion", 1].words == BROKEN and math.isnan(said["given_2", "deletion", 1].value)
    assert math.isfinite(said["given_2", "deletion", 0].value)
    assert "constant" in found.summary()[0].verdict


def test_a_still_model_and_a_single_input_get_words():
    found = attrib.evaluate(attrib.wrap(Still()), torch.ones(1, 3, 8, 8), "saliency", ["deletion", "insertion"])
    assert {row.words for row in found.rows} <= {UNCHANGED, CONSTANT}
    x = contract_nets.pictures(1)
    found = attrib.evaluate(contract_nets.model(), x, "saliency", ["deletion"], n_random=1)
    assert "too few inputs" in found.summary()[0].verdict and found.summary()[0].low is None


def test_a_single_token_is_flipped_and_has_no_order(texts):
    found = attrib.evaluate(texts, "great", "saliency", ["pixel_flipping", "complexity"], n_random=0)
    flipped, entropy = found.rows
    assert math.isfinite(flipped.value) and len(flipped.curve) == 1 and flipped.words == ""
    assert entropy.value == 0


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_where_there_is_no_number_there_are_words(pictures, fill):
    """A map of zeros, one that is constant, and a model that never changes: no metric leaves NaN or praise alone."""
    model, x, masks = pictures
    names = [name for name in of("image") if name != "completeness"]
    flat = attrib.evaluate(
        model, x, Given(torch.full((3, 16, 16), fill)), [cheap(name) for name in names], None, masks, n_random=0
    )
    assert all(row.words or math.isfinite(row.value) for row in flat.rows)
    removing = [name for name in names if name in ("deletion", "insertion", "pixel_flipping", "road", "infidelity",
                "comprehensiveness", "sufficiency", "robust_fidelity")]  # fmt: skip
    still = attrib.evaluate(
        attrib.wrap(Still()), x, Given(torch.rand(3, 16, 16)), [cheap(name) for name in removing], 0, n_random=0
    )
    assert {row.words for row in still.rows} == {UNCHANGED}


def test_wrong_questions_are_refused(pictures, texts):
    model, x, _ = pictures
    with pytest.raises(UnknownName, match="deletion"):
        attrib.evaluate(model, x, "saliency", "deletoin")
    with pytest.raises(InputError, match="needs masks"):
        attrib.evaluate(model, x, "saliency", "iou")
    with pytest.raises(InputError, match="do not fit"):
        attrib.evaluate(model, x, "saliency", "iou", masks=np.ones((3, 5, 5)))
    with pytest.raises(NotApplicable, match="comprehensiveness"):
        attrib.evaluate(texts, TEXTS, "saliency", "road")
    with pytest.raises(NotApplicable, match="text"):
        attrib.evaluate(texts, TEXTS, "guided_backprop", "deletion")
    with pytest.raises(InputError, match="at least one"):
        attrib.evaluate(model, x, [], "deletion")
    for odd, words in (
        ({"confidence": 2}, "confidence = 2"),
        ({"seed": -1}, "seed = -1"),
        ({"max_memory": "1"}, "bytes"),
    ):
        with pytest.raises(InputError, match=words):
            attrib.evaluate(model, x, "saliency", "deletion", **odd)
    deletion = attrib.METRICS["deletion"]
    for metric, words in ((deletion, r"Deletion\(\)"), (deletion(steps="a"), "steps = 'a'"), (3, "not int")):
        with pytest.raises(InputError, match=words):
            attrib.evaluate(model, x, "saliency", metric)


def test_targets_that_are_no_class(pictures):
    model, x, _ = pictures
    found = attrib.evaluate(
        model, x, "saliency", ["deletion", "road", "random_logit"], target=lambda logits: logits[:, 0] - logits[:, 1],
        n_random=0,
    )  # fmt: skip
    assert np.isfinite(found.values("saliency", "deletion")).all()
    assert all("no class" in row.words for row in found.rows if row.metric != "deletion")


@pytest.mark.parametrize("name", ["deletion", "comprehensiveness", "sufficiency", "infidelity", "robust_fidelity"])
def test_the_cost_is_told_beforehand(name):
    """Rows that go through the model, less those of the map and of settling the target, are the forwards told."""
    model, rows = contract_nets.model(), [0]
    metric = cheap(name)
    on = trial(model, contract_nets.pictures(1), 0)
    on.question.twin.register_forward_hook(lambda module, given, out: rows.__setitem__(0, rows[0] + len(given[0])))
    metric.score(on, subject(torch.rand(1, 16, 16)))
    assert rows[0] == metric.passes(model).forwards
    total = cost(model, ["saliency"], [metric], n_random=2)
    assert total.forwards == metric.passes(model).forwards * (1 + 2 * 2 + 2)


def test_progress_goes_up_and_cancelling_stops():
    model, x, seen = contract_nets.model(), contract_nets.pictures(2), []
    attrib.evaluate(model, x, "saliency", "deletion", n_random=1, on_progress=lambda part, message: seen.append(part))
    assert seen == sorted(seen) and seen[0] < 0.1 and seen[-1] == 1.0

    def stop(part: float, message: str) -> None:
        if part > 0.5:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        attrib.evaluate(model, x, "saliency", "deletion", n_random=1, on_progress=stop)


def test_a_result_can_be_saved_loaded_plotted_and_shown(pictures, tmp_path):
    model, x, masks = pictures
    model = dataclasses.replace(model, name="<script>alert(1)</script>")
    metrics = ["deletion", "iou", "completeness"]
    found = attrib.evaluate(model, x, ["saliency", "lrp"], metrics, masks=masks, n_random=1)
    found.save(tmp_path)
    again = Evaluation.load(tmp_path)
    assert json.dumps(again.document()) == json.dumps(found.document())
    assert again.markdown() == found.markdown() == (tmp_path / "summary.md").read_text().strip()
    assert (tmp_path / "rows.csv").read_text().count("\n") == 1 + 2 * 3 * 3
    assert found.plot().axes
    assert "<script>" not in found._repr_html_() and "Misleading" in found._repr_html_()
    assert ("saliency", "lrp") in found.agreement and ("lrp", "edges") in found.agreement
    with pytest.raises(InputError, match="no saved evaluation"):
        Evaluation.load(tmp_path / "nothing")


def test_parts_join_to_what_all_inputs_give_at_once(texts):
    """Four texts of one length at once, and two by two: the same rows, intervals, tests and means."""
    inputs = ["the film was good", "the food was bad", "a bad film indeed", "not a good day"]
    asked = (["saliency", "lrp"], ["comprehensiveness", "au_ac"])
    whole = attrib.evaluate(texts, inputs, *asked, n_random=1)
    parts = [attrib.evaluate(texts, inputs[k : k + 2], *asked, n_random=1) for k in (0, 2)]
    found = joined(parts)
    assert [(r.input, r.method, r.metric) for r in found.rows] == [(r.input, r.method, r.metric) for r in whole.rows]
    for ours, theirs in zip(found.summary(), whole.summary(), strict=True):
        assert ours.mean == pytest.approx(theirs.mean, abs=1e-6) and ours.verdict == theirs.verdict
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    for table in ("agreement", "reference_curves"):
        for key, values in getattr(whole, table).items():
            assert getattr(found, table)[key] == pytest.approx(values, abs=1e-6)
    assert found.facts["inputs"] == whole.facts["inputs"]
    with pytest.raises(InputError, match="seed do not join"):
        joined([parts[0], attrib.evaluate(texts, inputs, *asked, n_random=1, seed=1)])


def test_the_model_is_never_asked_twice_what_it_says_of_the_same_remains(texts):
    """The same map by another name costs nothing, and the whole text is asked once for all metrics."""
    on, rows = trial(texts, TEXTS, 0), []
    on.question.twin.register_forward_hook(
        lambda module, args, kwargs, out: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    maps = subject(torch.rand(on.allowed.shape))
    first = [cheap(name).score(on, maps).values.tolist() for name in ("comprehensiveness", "au_ac", "au_mse")]
    asked = sum(rows)
    again = [cheap(name).score(on, maps).values.tolist() for name in ("comprehensiveness", "au_ac", "au_mse")]
    assert again == first and sum(rows) == asked
    left = set()
    for row, n in enumerate(on.allowed.sum(1).tolist()):
        left |= {(row, 0, math.ceil(n * k / 3)) for k in range(4)}  # from the top: generated, or kept when pruned
        left |= {(row, 0, n - math.ceil(n * k / 3)) for k in range(4)}
        left |= {(row, math.ceil(n * share), n) for share in (0, 0.01, 0.05, 0.1, 0.2, 0.5)}
    assert asked == len({one for one in left if one[1] < one[2]} | {(row, 0, 0) for row, *_ in left})


def test_every_metric_has_a_card():
    for name, cls in METRICS.items():
        assert cls.name == name and metric_named(name) == cls()
        for field in dataclasses.fields(cls.card):
            assert getattr(cls.card, field.name), f"{name} says nothing of its {field.name}"
