"""What every result and every method must have."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from contract_nets import METHOD_NAMES, Answering, Constant, cheap, model, network, pictures, state_of

import attrib
from attrib.methods.base import Card, Method

pytestmark = pytest.mark.parametrize("name", METHOD_NAMES)


def test_shapes(name):
    x = pictures()
    result = attrib.explain(model(), x, cheap(name))
    assert len(result) == len(result.target) == 3 and result.score.shape == (3,)
    if result.kind == "input":
        assert result.values.shape == x.shape
        assert result.heatmap().shape == (3, 16, 16)
    else:
        assert result.kind == "layer" and result.values.dim() == 3
    assert result.heatmap(20).shape == (3, 20, 20)
    assert result.heatmap().dtype == np.float32
    assert result.values.isfinite().all() and not result.values.requires_grad and not result.score.requires_grad
    assert result.signed or (result.values >= 0).all()
    assert (result.values != 0).any(), "an empty map would pass every comparison"
    with torch.no_grad():
        logits = model().module(x)
    assert [t["index"] for t in result.target] == logits.argmax(1).tolist()
    torch.testing.assert_close(result.score, logits.amax(1))


def test_saved_and_loaded_again(name, tmp_path):
    result = attrib.explain(model(), pictures(2), cheap(name), attrib.LogitDiff(1, 2))
    loaded = attrib.Attribution.load(result.save(tmp_path / "result"))
    for field in dataclasses.fields(attrib.Attribution):
        saved, found = getattr(result, field.name), getattr(loaded, field.name)
        if isinstance(saved, torch.Tensor):
            assert torch.equal(saved, found) and saved.dtype == found.dtype
        elif field.name in ("ledger", "parts") and saved is not None:
            assert saved.keys() == found.keys() and all(torch.equal(saved[k], found[k]) for k in saved)
        else:
            assert saved == found, field.name


def test_provenance_is_plain(name):
    result = attrib.explain(model(), pictures(1), cheap(name), 1)
    document = dataclasses.asdict(result.provenance)
    assert json.loads(json.dumps(document, allow_nan=False))["method"] == name
    assert set(document["settings"]) >= {f.name for f in dataclasses.fields(cheap(name))}
    assert document["seconds"] > 0 and len(document["weights_hash"]) == 64 and document["dtype"] == "float64"
    assert [len(h) for h in document["input_hashes"]] == [64]
    json.dumps(result.target, allow_nan=False)


def test_another_kind_of_model(name):
    with pytest.raises(attrib.NotApplicable, match="does not apply to sound models"):
        attrib.explain(SimpleNamespace(kind="sound", name="ear"), pictures(1), name)


def test_a_model_that_does_not_look_at_its_input(name):
    result = attrib.explain(model(Constant), pictures(2), cheap(name), 1)
    assert (result.values == 0).all()
    assert any("zero everywhere" in note and "0, 1" in note for note in result.notes), result.notes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_without_gradients(name, dtype):
    """Methods of forwards only answer; others say what is missing, or have nothing to show."""
    subject = attrib.wrap(Answering(network(dtype=dtype), lambda logits: logits.detach()))
    before = state_of(subject.module)
    try:
        result = attrib.explain(subject, pictures(2, dtype), cheap(name), 1)
    except attrib.UnsupportedModel as error:
        said = str(error)
        assert "no gradient" in said
    else:
        assert name in ("occlusion", "kernel_shap") or (result.values == 0).all()
    assert state_of(subject.module) == before


def test_is_described(name):
    cls = attrib.METHODS[name]
    assert issubclass(cls, Method) and cls.name == name and cls.__doc__
    assert {field.name for field in dataclasses.fields(Card)} == {k for k, v in vars(cls.card).items() if v.strip()}
    assert not any("\n" in text or "  " in text for text in vars(cls.card).values())
    for field in dataclasses.fields(cls):
        assert field.metadata["help"].strip(), field.name
        assert {"low", "high", "choices"} <= set(field.metadata), field.name
        choices = field.metadata["choices"]
        assert choices is None or field.default is None or field.default in choices, field.name


def test_is_a_value(name):
    cls = attrib.METHODS[name]
    assert cls() == cls() and hash(cls()) == hash(cls()) and cls is type(cls())
    for field in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(cls(), field.name, None)
