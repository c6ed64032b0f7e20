"""What a caller may write as a target, and what is said about what cannot be one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import attrib
from attrib.binding import bind
from attrib.outputs import logits_of

LOGITS = torch.tensor([[1.0, 4.0, 2.0, -1.0], [3.0, 0.0, -2.0, 5.0]])


def index_of(name):
    if isinstance(name, str):
        if name not in ("cat", "dog"):
            raise attrib.TargetError(f"no class {name}")
        return ("cat", "dog").index(name)
    return name


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, [4.0, 5.0]),
        (2, [2.0, -2.0]),
        ("dog", [4.0, 0.0]),
        ([0, 3], [1.0, 5.0]),
        (["dog", 2], [4.0, -2.0]),
        ((1, 1), [4.0, 0.0]),
        (torch.tensor([3, 0]), [-1.0, 3.0]),
        (attrib.Logit("cat"), [1.0, 3.0]),
        (attrib.LogitDiff("dog", 2), [2.0, 2.0]),
        ([attrib.LogitDiff(0, 1), attrib.LogitDiff(3, 0)], [-3.0, 2.0]),
        (lambda outputs: outputs[:, :2].sum(1), [5.0, 3.0]),
    ],
)
def test_scores(target, expected):
    bound = bind(target, 2, index_of).settled(LOGITS)
    assert bound.scores(LOGITS).tolist() == expected


def test_log_probability():
    score = bind(attrib.LogProb(1), 2, index_of).scores(LOGITS)
    torch.testing.assert_close(score, LOGITS.log_softmax(1)[:, 1])


def test_rows_are_variants_of_samples():
    bound = bind([0, 3], 2, index_of)
    rows = torch.tensor([1, 0, 1])
    assert bound.scores(LOGITS[[0, 0, 1]], rows).tolist() == [-1.0, 1.0, 5.0]
    assert bound.part(1, 2).scores(LOGITS[1:]).tolist() == [5.0]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([0], "1 target for 2 inputs"),
        ([0, 1, 2], "3 targets for 2 inputs"),
        ("bird", "no class bird"),
        (1.5, "cannot explain the target 1.5; give"),
        (True, "the target True"),
        ([0, attrib.LogProb(1)], "targets of several kinds, LogProb and Logit"),
        ({"index": 1}, "the target {'index': 1}"),
        (torch.tensor([1.5, 2.0]), "float32 numbers"),
        (torch.tensor([[1], [2]]), r"shape \(2, 1\)"),
        (np.array([True, False]), "bool numbers"),
    ],
)
def test_what_cannot_be_bound(target, message):
    with pytest.raises(attrib.TargetError, match=message):
        bind(target, 2, index_of)


@pytest.mark.parametrize("one", [torch.tensor(1), np.array(1), np.int64(1)])
def test_arrays_hold_one_class_for_all_or_one_for_each(one):
    assert bind(one, 2, index_of).scores(LOGITS).tolist() == [4.0, 0.0]
    for several in (torch.tensor([1, 3]), np.array([1, 3])):
        assert bind(several, 2, index_of).scores(LOGITS).tolist() == [4.0, 5.0]


def test_a_class_that_the_model_does_not_have():
    with pytest.raises(attrib.TargetError, match="target 4 is out of range: the model has 4 classes, 0 to 3"):
        bind(4, 2, index_of).scores(LOGITS)


@pytest.mark.parametrize("returned", [LOGITS, LOGITS.sum(), 3.0, None])
def test_a_callable_that_returns_something_else(returned):
    with pytest.raises(attrib.TargetError, match=r"must return a \(batch,\) tensor"):
        bind(lambda outputs: returned, 2, index_of).scores(LOGITS)


@pytest.mark.parametrize("method", ["saliency", "occlusion", "integrated_gradients", "lrp", "kernel_shap"])
@pytest.mark.parametrize("wrong", [lambda outputs: outputs[:1, 0], lambda outputs: outputs.flatten()])
def test_a_callable_gives_a_number_for_each_row(method, wrong):
    model = attrib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)))
    with pytest.raises(attrib.TargetError, match="a number for each row"):
        attrib.explain(model, torch.ones(2, 3, 4, 4), method, wrong)


@pytest.mark.parametrize(
    "outputs",
    [
        LOGITS,
        {"loss": torch.tensor(1.0), "logits": LOGITS},
        {"out": LOGITS, "aux": LOGITS + 1},
        {"anything": LOGITS},
        (LOGITS, LOGITS + 1),
        [torch.tensor([1]), LOGITS],
        SimpleNamespace(logits=LOGITS),
    ],
)
def test_logits_are_found(outputs):
    assert logits_of(outputs) is LOGITS


@pytest.mark.parametrize("outputs", [{}, (), None, "logits", {"loss": None}, SimpleNamespace(loss=LOGITS)])
def test_outputs_without_logits(outputs):
    with pytest.raises(attrib.UnsupportedModel, match="without a tensor of logits"):
        logits_of(outputs)


def test_dense_logits_are_summed_over_positions():
    dense = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert bind(1, 2, index_of).scores(dense).tolist() == dense[:, 1].sum((1, 2)).tolist()


@pytest.mark.parametrize("shape", [(2,), (2, 0)])
def test_logits_without_classes_are_refused(shape):
    with pytest.raises(attrib.UnsupportedModel, match=r"\(batch, classes\) is needed"):
        bind(None, 2, index_of).settled(torch.zeros(shape))


def test_descriptions_have_labels():
    labels = ("cat", "dog", "eel", "fox")
    bound = bind(attrib.LogitDiff("dog", 3), 2, index_of)
    expected = {"kind": "difference", "index": 1, "label": "dog", "versus": 3, "versus_label": "fox"}
    assert bound.describe(lambda i: labels[i] if i < len(labels) else str(i), 2) == [expected, expected]

    def mean_of_all(outputs):
        return outputs.mean(1)

    assert bind(mean_of_all, 1, index_of).describe(str, 1) == [{"kind": "function", "function": "mean_of_all"}]


def test_a_label_in_a_wrapped_model():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    model = attrib.wrap(net, labels=["cat", "dog", "eel"])
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    by_label = attrib.explain(model, x, "saliency", "dog")
    assert torch.equal(by_label.values, attrib.explain(model, x, "saliency", 1).values)
    assert [t["label"] for t in by_label.target] == ["dog", "dog"]
    with pytest.raises(attrib.TargetError, match="did you mean 'dog'"):
        attrib.explain(model, x, "saliency", "dogs")
    with pytest.raises(attrib.TargetError, match="out of range"):
        attrib.explain(model, x, "saliency", 3)
    with pytest.raises(attrib.TargetError, match="out of range"):
        attrib.explain(model, x, "saliency", -1)


@pytest.mark.parametrize("labels", [["cat"], ["cat", "dog", "eel", "fox"]])
def test_labels_are_as_many_as_classes(labels):
    model = attrib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), labels=labels)
    x = torch.ones(2, 3, 2, 2)
    for ask in (lambda: attrib.explain(model, x, "saliency"), lambda: model.predict(x)):
        with pytest.raises(attrib.UnsupportedModel, match=f"3 classes and {len(labels)} labels"):
            ask()
    first = attrib.explain(model, x, "saliency", lambda outputs: outputs[:, 0])
    assert torch.equal(first.score, model.module(x)[:, 0])


@pytest.mark.parametrize(
    ("target", "words"),
    [(-1, "-1 is out of range: classes"), (10**30, "is out of range: classes"), ([None, 1], "has None in it")],
)
def test_what_no_model_has(target, words):
    model = attrib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)))
    with pytest.raises(attrib.TargetError, match=words):
        attrib.explain(model, torch.ones(2, 3, 2, 2), "saliency", target)


def test_an_index_of_numpy_is_an_index():
    model = attrib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)))
    result = attrib.explain(model, torch.ones(2, 3, 2, 2), "saliency", [np.int64(3), 1])
    assert [target["index"] for target in result.target] == [3, 1]
