"""Methods that compare two prompts: their rows are what `sampled_correlation` says, pair by pair."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from patching_oracles import network, wrapped

import attrib
from attrib.metrics.patched import PatchingCorrelation

CLEAN = torch.tensor([[5, 9, 17, 23, 8, 3, 30], [6, 9, 18, 23, 4, 3, 31]])
CORRUPTED = torch.tensor([[5, 9, 21, 23, 8, 3, 30], [6, 11, 18, 23, 24, 3, 31]])
ANSWER = attrib.LogitDiff(12, 25)


@pytest.fixture(scope="module")
def model():
    return wrapped(network("llama"))


@pytest.mark.parametrize("coefficient", ["pearson", "spearman"])
def test_a_row_is_what_the_sample_of_that_pair_says(model, coefficient):
    given = attrib.pair(CLEAN, CORRUPTED)
    metric = PatchingCorrelation(sites=12, coefficient=coefficient)
    found = attrib.evaluate(model, given, ["relp", "attribution_patching", "activation_patching"], metric, ANSWER)
    assert metric.passes(model).forwards == 12
    assert len(found.rows) == 6 and found.better == {"patching_correlation": "higher"}
    for row in found.rows:
        one = attrib.pair(CLEAN[row.input : row.input + 1], CORRUPTED[row.input : row.input + 1])
        result = attrib.explain(model, one, row.method, ANSWER)
        sampled = attrib.sampled_correlation(model, one, result, ANSWER, sites=12)
        assert row.value == pytest.approx(getattr(sampled, coefficient).value, abs=1e-9)
        assert abs(row.references["random"]) < 0.6
    assert found.values("activation_patching", "patching_correlation") == pytest.approx([1.0, 1.0], abs=0.05)
    assert ("relp", "attribution_patching") in found.agreement
    assert "patching_correlation ↑" in found.markdown() and "activation patching" in found._repr_html_()


def test_what_finds_nothing_gets_words_and_what_does_not_apply_is_refused(model):
    alike = attrib.pair(CLEAN, CLEAN)
    found = attrib.evaluate(model, alike, "relp", "patching_correlation", ANSWER, n_random=1)
    assert all(math.isnan(row.value) and "no effect" in row.words for row in found.rows)
    with pytest.raises(attrib.NotApplicable, match="patching_correlation"):
        attrib.evaluate(model, alike, "relp", "deletion", ANSWER)
    with pytest.raises(attrib.NotApplicable, match="relp"):
        attrib.evaluate(model, alike, "saliency", "patching_correlation", ANSWER)
    with pytest.raises(attrib.NotApplicable, match=r"attrib\.pair"):
        attrib.evaluate(model, CLEAN, "saliency", "patching_correlation", 3)
    with pytest.raises(attrib.InputError, match="2 pairs"):
        attrib.evaluate(model, alike, "relp", "patching_correlation", [ANSWER])
    with pytest.raises(attrib.InputError, match="at least one"):
        attrib.evaluate(model, alike, [], "patching_correlation")


def test_the_light_of_a_result_on_pairs(model):
    """Told beforehand what it costs; true effects agree with themselves, their opposites do not."""
    given = attrib.pair(CLEAN, CORRUPTED)
    result = attrib.explain(model, given, "attribution_patching", ANSWER)
    assert [light.verdict for lights in result.evidence.lights for light in lights] == ["not checked"] * 2
    assert result.evidence.cost == "50 forwards"
    true = attrib.explain(model, given, "activation_patching", ANSWER)
    assert "activation patching itself" in str(true.evidence) and not true.evidence.cost
    for sign, verdict in ((1.0, "passes"), (-1.0, "fails")):
        found = attrib.check(model, given, dataclasses.replace(result, values=sign * true.values))
        assert [light.verdict for lights in found.lights for light in lights] == [verdict] * 2
        assert "drawn at random" in found.lights[0][0].words and not found.cost
    light = attrib.check(model, given, result).lights[1][0]
    one = attrib.pair(CLEAN[1:], CORRUPTED[1:])
    alone = attrib.explain(model, one, "attribution_patching", ANSWER)
    assert light.value == pytest.approx(attrib.sampled_correlation(model, one, alone).pearson.value, abs=1e-9)
    with pytest.raises(attrib.InputError, match="2"):
        attrib.check(model, one, result)
    same = attrib.pair(CLEAN, CLEAN)
    nothing = attrib.check(model, same, attrib.explain(model, same, "relp", ANSWER))
    assert nothing.lights[0][0].verdict == "does not apply"
