"""The result: reading it, writing it, and what it says about itself."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

import attrib
from attrib.attribution import Attribution, labels_of
from attrib.coverage import Coverage
from attrib.provenance import Provenance


@pytest.fixture
def result() -> Attribution:
    values = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    provenance = Provenance(
        method="lrp", settings={"preset": "epsilon"}, model="net", weights_hash="w", input_hashes=("a", "b"),
        versions={"torch": "2"}, device="cpu", dtype="float64", seed=None, seconds=0.5, peak_memory=1, created="now",
    )  # fmt: skip
    return Attribution(
        kind="input",
        values=values,
        target=[{"kind": "logit", "index": 1, "label": "dög"}, {"kind": "logit", "index": 0}],
        score=torch.tensor([2.0, -4.0], dtype=torch.float64),
        delta=torch.tensor([0.5, 1.0], dtype=torch.float64),
        provenance=provenance,
        coverage=Coverage({"conv2d": 2}, {"add": 1}, {"sin in a.b": 1}),
        ledger={"input": torch.tensor([1.5, -5.0]), "bias": torch.tensor([0.5, 1.0])},
        notes=("first", "second"),
        pictures=np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3),
    )


def test_saved_and_loaded(result, tmp_path):
    folder = result.save(tmp_path / "deep" / "er")
    assert sorted(path.name for path in folder.iterdir()) == ["attribution.json", "values.safetensors"]
    loaded = Attribution.load(str(folder))
    assert torch.equal(loaded.values, result.values) and loaded.values.dtype == torch.float64
    assert torch.equal(loaded.delta, result.delta) and np.array_equal(loaded.pictures, result.pictures)
    assert {k: v.tolist() for k, v in loaded.ledger.items()} == {k: v.tolist() for k, v in result.ledger.items()}
    for name in ("kind", "target", "provenance", "coverage", "notes", "reduction", "signed", "parts", "token_texts"):
        assert getattr(loaded, name) == getattr(result, name), name
    assert np.array_equal(loaded.heatmap(), result.heatmap())
    json.loads((folder / "attribution.json").read_bytes().decode("ascii"))


def test_saving_twice_replaces(result, tmp_path):
    result.save(tmp_path)
    dataclasses.replace(result, values=result.values * 2, notes=()).save(tmp_path)
    loaded = Attribution.load(tmp_path)
    assert torch.equal(loaded.values, result.values * 2) and loaded.notes == ()
    assert len(list(tmp_path.iterdir())) == 2, "no temporary file stays"


def damaged(folder, name, content):
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("attribution.json", b""),
        ("attribution.json", b"[]"),
        ("attribution.json", b'{"format": 1}'),
        ("attribution.json", b'{"format": 99}'),
        ("attribution.json", b"\xff\xfe"),
        ("values.safetensors", b""),
        ("values.safetensors", b"\x80\x04."),
    ],
)
def test_a_damaged_folder(result, tmp_path, name, content):
    result.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(attrib.InputError):
        Attribution.load(tmp_path)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(attrib.InputError, match="holds no saved attribution"):
        Attribution.load(tmp_path / "nowhere")


def test_heatmap_reductions(result):
    values = result.values.float()
    np.testing.assert_allclose(result.heatmap(), values.sum(1).numpy(), rtol=1e-6)
    largest = dataclasses.replace(result, reduction="max_abs").heatmap()
    np.testing.assert_allclose(largest, values.abs().amax(1).numpy())
    norm = dataclasses.replace(result, reduction="norm").heatmap()
    np.testing.assert_allclose(norm, values.square().sum(1).sqrt().numpy(), rtol=1e-6)
    assert result.heatmap(8).shape == (2, 8, 8) and result.heatmap((3, 5)).shape == (2, 3, 5)


def test_a_layer_map_is_as_large_as_the_picture(result):
    layer = dataclasses.replace(result, kind="layer", values=torch.rand(2, 2, 2))
    assert layer.heatmap().shape == (2, 4, 6)
    assert dataclasses.replace(layer, pictures=None).heatmap().shape == (2, 2, 2)


@pytest.mark.parametrize("size", [(0, 5), -1, 5.5, (5,), (5, 5, 5), "a", True, 10**9])
def test_a_size_that_no_picture_has(result, size):
    with pytest.raises(attrib.InputError, match=r"give \(height, width\)"):
        result.heatmap(size)


def test_what_a_kind_does_not_have(result):
    tokens = dataclasses.replace(result, kind="tokens", values=torch.ones(1, 2), token_texts=(("a", "b"),))
    assert tokens.tokens() == [("a", 1.0), ("b", 1.0)]
    with pytest.raises(attrib.InputError, match="has no heatmap"):
        tokens.heatmap()
    with pytest.raises(attrib.InputError, match="there is no sample 5; the result has 1"):
        tokens.tokens(5)
    with pytest.raises(attrib.InputError, match="has no tokens"):
        result.tokens()


def test_what_it_says(result):
    assert len(result) == 2 and result.method == "lrp"
    assert result.relative_delta.tolist() == [0.25, 0.25]
    assert dataclasses.replace(result, delta=None).relative_delta is None
    text = repr(result)
    assert "lrp" in text and "dög" in text and "-4.0" in text and "second" in text
    assert str(result.coverage) == "2 ruled, 1 linear, uncovered: sin in a.b"
    assert str(Coverage({"a": 1})) == "1 ruled, 0 linear, nothing uncovered"
    assert labels_of([{"index": 3}, {"label": "dog", "versus_label": "cat"}]) == ["3", "dog rather than cat"]


def test_it_draws_itself(result):
    assert "<" in result._repr_html_()
    assert result.plot().axes


def tiny() -> attrib.models.VisionModel:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return attrib.wrap(net)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 4, 4), r"x\[None\]"),
        (torch.zeros(1, 1, 4, 4), "expected"),
        (torch.zeros(0, 3, 4, 4), "expected"),
        (torch.full((1, 3, 4, 4), float("nan")), "NaN"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "uint8"),
        ("no/such/file.png", "no"),
        (None, "NoneType"),
    ],
)
def test_bad_inputs(x, message):
    with pytest.raises(attrib.InputError, match=message):
        attrib.explain(tiny(), x, "saliency")


def test_an_unknown_method():
    with pytest.raises(attrib.UnknownName, match="did you mean saliency"):
        attrib.explain(tiny(), torch.zeros(1, 3, 4, 4), "salience")


def test_rows_of_a_result():
    model, x = tiny(), torch.rand(3, 3, 4, 4)
    result = attrib.explain(model, x, "lrp", [0, 1, 2])
    for i, one in enumerate(result):
        alone = attrib.explain(model, x[i : i + 1], "lrp", i)
        torch.testing.assert_close(one.values, alone.values)
        assert (one.target, one.provenance.input_hashes) == (alone.target, alone.provenance.input_hashes)
        assert one.ledger.keys() == alone.ledger.keys() and len(one) == 1
        assert one.notes == alone.notes
    assert torch.equal(result[-1].values, result[2:].values) and len(result[:2]) == 2
    with pytest.raises(IndexError, match="sample 3 of a result with 3"):
        result[3]
    with pytest.raises(attrib.InputError, match="by a whole number or a slice, not str"):
        result["0"]


def test_notes_of_a_row_are_about_that_row():
    model, x = tiny(), torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x[1] = 0  # nothing times any gradient
    result = attrib.explain(model, x, "input_x_gradient", 0)
    empty = "is zero everywhere: the method found nothing"
    assert f"the map of input 1 {empty}" in result.notes
    assert [f"the map {empty}" in one.notes for one in result] == [False, True, False]
    assert f"the map of input 0 {empty}" in result[1:].notes
    alone = [attrib.explain(model, x[i : i + 1], "input_x_gradient", 0).notes for i in range(3)]
    assert [one.notes for one in result] == alone and len(set(alone)) == 3
    planned = dataclasses.replace(result, notes=("chunks of one row", *result.notes))
    assert planned[0].notes == ("chunks of one row", *alone[0])


def test_as_an_array():
    result = attrib.explain(tiny(), torch.rand(2, 3, 4, 4), "saliency", 0)
    np.testing.assert_array_equal(np.asarray(result), result.values.numpy())
    assert np.asarray(result, dtype=np.float64).dtype == np.float64
    assert dataclasses.replace(result, values=result.values.bfloat16()).numpy().dtype == np.float32


def test_a_model_is_told_in_a_line():
    assert repr(tiny()) == "VisionModel('Sequential', Sequential, float32 on cpu)"


def test_too_small_an_input_names_the_module_that_failed():
    with pytest.raises(attrib.UnsupportedModel, match="Sequential failed in its module '0'"):
        attrib.explain(tiny(), torch.zeros(1, 3, 2, 2), "saliency")


def test_a_model_that_gives_nan_is_noted():
    model = tiny()
    model.module[3].weight.data[0, 0] = float("nan")
    result = attrib.explain(model, torch.ones(2, 3, 4, 4), "input_x_gradient", 0)
    assert any("NaN" in note for note in result.notes)


def test_compare_numbers_equal_names():
    methods = ["saliency", attrib.LRP("epsilon"), attrib.LRP("epsilon_plus"), attrib.LRP("gradient")]
    results = attrib.compare(tiny(), torch.ones(1, 3, 4, 4), methods, 1)
    assert list(results) == ["saliency", "lrp", "lrp_2", "lrp_3"]
    assert [r.provenance.settings.get("preset") for r in results.values()] == [
        None,
        "epsilon",
        "epsilon_plus",
        "gradient",
    ]
    assert all(r.target[0]["index"] == 1 for r in results.values())


@pytest.mark.parametrize(
    ("methods", "words"),
    [(attrib.LRP, r"give a method, LRP\(\)"), (None, "not NoneType"), ([["lrp"]], "takes several")],
)
def test_compare_says_what_is_no_method(methods, words):
    with pytest.raises(attrib.InputError, match=words):
        attrib.compare(tiny(), torch.ones(1, 3, 4, 4), methods)


def test_provenance_holds_the_preset_that_ran_and_that_it_was_chosen():
    asked, plain, given = (
        attrib.explain(tiny(), torch.ones(1, 3, 4, 4), method, 0).provenance
        for method in (attrib.SmoothGrad(base=attrib.LRP(), n_samples=2), attrib.LRP(), attrib.LRP("epsilon_plus_flat"))
    )
    assert plain.settings == given.settings and plain.settings["preset"] == "epsilon_plus_flat"
    assert (plain.chosen, given.chosen, asked.chosen) == ({"preset": "auto"}, {}, {"base.preset": "auto"})
    assert asked.settings["base"]["preset"] == "epsilon_plus_flat"
