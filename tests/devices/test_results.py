"""What is done with results, metrics, circuits and fast copies works wherever the model lies, to the CPU's numbers."""

from __future__ import annotations

import dataclasses
import math

import matplotlib.pyplot as plt
import pytest
import torch
from contract_nets import language_model, pictures
from contract_nets import model as image_model
from machine import device
from moved import KINDS, TEXTS, assert_same, on, text_model

import attrib
from attrib.models.fast import fast

CHEAP = {"steps": 4, "n_samples": 4, "n_regions": 9, "n_permutations": 2, "draws": 2}
OF_IMAGES = [name for name, cls in attrib.METRICS.items() if "image" in cls.applies_to]
OF_TEXTS = [name for name, cls in attrib.METRICS.items() if "text" in cls.applies_to]
PAIRS = attrib.pair(["w5 w6 w7 w8", "w6 w7 w8 w9"], ["w5 w20 w7 w8", "w6 w21 w8 w9"])
everywhere = pytest.mark.parametrize("kind", KINDS)
# refuses all that CUDA refuses, and float64
strictest = pytest.mark.parametrize("kind", ["mps"])


def cheap_metric(name):
    metric = attrib.METRICS[name]()
    return dataclasses.replace(metric, **{f.name: CHEAP[f.name] for f in dataclasses.fields(metric) if f.name in CHEAP})


def assert_close(found, expected, close=1e-3):
    """Two evaluations' rows, of references and differences too."""
    assert len(found.rows) == len(expected.rows) > 0
    for one, other in zip(found.rows, expected.rows, strict=True):
        assert (one.metric, one.method, one.input) == (other.metric, other.method, other.input)
        assert (one.value is None) == (other.value is None), one.metric
        if other.value is not None:
            assert math.isclose(one.value, other.value, rel_tol=close, abs_tol=close), one.metric


def verdicts(evidence):
    return [(light.name, light.verdict) for row in evidence.lights for light in row]


@everywhere
def test_a_result_is_saved_drawn_and_judged(kind, tmp_path):
    here, x = image_model(dtype=torch.float32), pictures(2, torch.float32)
    known = attrib.explain(here, x, "lrp")
    with device(kind, **KINDS[kind]):
        there = on(here, kind)
        found = attrib.explain(there, x, "lrp")
        assert torch.equal(attrib.Attribution.load(found.save(tmp_path)).values, known.values)
        assert (found.heatmap(8) == known.heatmap(8)).all()
        assert verdicts(found.evidence) == verdicts(known.evidence) and repr(found) == repr(known)
        assert found.relative_delta.device.type == kind and "<" in found._repr_html_()
        plt.close(found.plot())
        assert [p.index for p in there.predict(x)[0]] == [p.index for p in here.predict(x)[0]]
        assert verdicts(attrib.check(there, x, found)) == verdicts(attrib.check(here, x, known))


@strictest
def test_metrics_of_images(kind):
    here, x = image_model(dtype=torch.float32), pictures(2, torch.float32)
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[:, 4:9, 4:9] = True
    metrics = [cheap_metric(name) for name in OF_IMAGES]
    expected = attrib.evaluate(here, x, ["lrp"], metrics, 1, masks=masks)
    with device(kind, **KINDS[kind]):
        assert_close(attrib.evaluate(on(here, kind), x, ["lrp"], metrics, 1, masks=masks), expected)


@strictest
def test_metrics_of_texts(kind):
    here = text_model("bert", "classification")
    metrics = [cheap_metric(name) for name in OF_TEXTS if not attrib.METRICS[name].__module__.endswith("localisation")]
    known = attrib.evaluate(here, TEXTS, ["lrp"], [m for m in metrics if m.name not in ("au_ac", "au_mse")])
    with device(kind, **KINDS[kind]):
        there = on(here, kind)
        found = attrib.evaluate(there, TEXTS, ["lrp"], [m for m in metrics if m.name not in ("au_ac", "au_mse")])
        assert_close(found, known)


@everywhere
def test_class_sensitivity(kind):
    here, x = image_model(dtype=torch.float32), pictures(2, torch.float32)
    known = attrib.class_sensitivity(here, x, "grad_cam")
    with device(kind, **KINDS[kind]):
        assert attrib.class_sensitivity(on(here, kind), x, "grad_cam").mean == pytest.approx(known.mean, abs=1e-4)


@everywhere
def test_a_fast_copy(kind):
    here, x = image_model(dtype=torch.float32), pictures(2, torch.float32)
    known = attrib.explain(here, x, "lrp", 1)
    with device(kind, **KINDS[kind]):
        quick = fast(on(here, kind), example=x)
        assert_same(attrib.explain(quick, x, "saliency", 1), attrib.explain(here, x, "saliency", 1), kind, 1e-4)
        assert attrib.explain(quick, x, "lrp", 1).values.shape == known.values.shape


@everywhere
def test_a_generated_text(kind):
    here = language_model(torch.float32)
    known = attrib.explain_generation(here, "w5 w6 w7", attrib.LRP(preset="attn_lrp"), "w8 w9 w10")
    with device(kind, **KINDS[kind]):
        found = attrib.explain_generation(on(here, kind), "w5 w6 w7", attrib.LRP(preset="attn_lrp"), "w8 w9 w10")
        assert torch.allclose(found.values.cpu(), known.values, atol=1e-5, equal_nan=True)


@strictest
def test_effects_of_patches(kind):
    here = language_model(torch.float32)
    true, estimated = (attrib.explain(here, PAIRS, name) for name in ("activation_patching", "attribution_patching"))
    with device(kind, **KINDS[kind]):
        there = on(here, kind)
        patched, guessed = (
            attrib.explain(there, PAIRS, name) for name in ("activation_patching", "attribution_patching")
        )
        assert_same(patched, true, kind, 1e-3)
        assert patched.mean().low.cpu().allclose(true.mean().low, atol=1e-5)
        assert patched.normalised().cpu().allclose(true.normalised(), atol=1e-4)
        assert [(e.site, e.position) for e in patched.top(3)] == [(e.site, e.position) for e in true.top(3)]
        for one, other in ((patched, guessed), (patched, estimated), (true, guessed)):
            assert one.correlation(other) == pytest.approx(true.correlation(estimated), abs=1e-4)
        plt.close(patched.plot())
        checked, known = (
            attrib.verify_effects(*given) for given in ((there, PAIRS, guessed), (here, PAIRS, estimated))
        )
        assert checked.correlation == pytest.approx(known.correlation, abs=1e-4)


@pytest.mark.parametrize("ablation", ["corrupted", "mean"])
@strictest
def test_a_circuit(ablation, kind):
    here = language_model(torch.float32)
    edges = attrib.explain(here, PAIRS, attrib.RelP(edges=True))
    known = attrib.circuit(here, PAIRS, edges, 5, ablation=ablation)
    with device(kind, **KINDS[kind]):
        there = on(here, kind)
        found = attrib.circuit(
            there, PAIRS, attrib.explain(there, PAIRS, attrib.RelP(edges=True)), 5, ablation=ablation
        )
        assert found.faithfulness == pytest.approx(known.faithfulness, abs=1e-3)
        assert [edge[:2] for edge in found.edges] == [edge[:2] for edge in known.edges]
