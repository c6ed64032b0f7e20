"""Single entries of activation patching, and estimates verified by them: the strongest, and a random sample."""

from __future__ import annotations

import math

import pytest
import torch
from patching_oracles import (
    ANSWER,
    CLEAN,
    CORRUPTED,
    explained,
    network,
    wrapped,
)
from scipy.stats import bootstrap, pearsonr, spearmanr

import attrib


def test_single_entries():
    module = network("llama")
    everything = explained(module, attrib.ActivationPatching(sites=("mlp_out.*", "head.*.*")))
    only = ("mlp_out.1@2", "head.0.3@6", "head.1.0@0")
    some = explained(module, attrib.ActivationPatching(sites=("mlp_out.*", "head.*.*"), only=only))
    assert some.parts["measured"].sum() == 2 * 3 and some.values.isfinite().sum() == 2 * 3
    kept = some.values.isfinite()
    torch.testing.assert_close(some.values[kept], everything.values[kept], rtol=0, atol=1e-10)
    assert not any("NaN" in note for note in some.notes)
    with pytest.raises(attrib.InputError, match="site@position"):
        explained(module, attrib.ActivationPatching(only=("mlp_out.1",)))
    with pytest.raises(attrib.UnknownName, match=r"mlp_out\.7"):
        explained(module, attrib.ActivationPatching(only=("mlp_out.7@1",)))
    with pytest.raises(attrib.InputError, match="position 9"):
        explained(module, attrib.ActivationPatching(only=("mlp_out.1@9",)))
    with pytest.raises(attrib.UnknownName, match="denoising"):
        explained(module, attrib.ActivationPatching(direction="denoise"))


def test_verified_estimates_are_those_of_the_whole_result():
    module = network("llama")
    model, given = wrapped(module), attrib.pair(CLEAN, CORRUPTED)
    for method in (attrib.RelP(), attrib.AttributionPatching(direction="noising")):
        estimate = attrib.explain(model, given, method, ANSWER)
        direction = getattr(method, "direction", "denoising")
        true = attrib.explain(model, given, attrib.ActivationPatching(direction=direction), ANSWER)
        for index in (0, 1):
            found = attrib.verify_effects(model, given, estimate, k=12, index=index)
            assert [e[:4] for e in found.entries] == [e[:4] for e in estimate.top(12, index)]
            for entry in found.entries:
                place = (index, true.sites.index(entry.site), entry.position)
                assert entry.estimated == float(estimate.values[place])
                assert math.isclose(entry.true, float(true.values[place]), abs_tol=1e-10)
            r = pearsonr([e.estimated for e in found.entries], [e.true for e in found.entries]).statistic
            assert math.isclose(found.correlation, r, abs_tol=1e-9)
            assert f"{r:.3f}" in str(found) and found.entries[0].site in str(found)


def test_the_sampled_correlation_is_that_of_the_drawn_entries():
    """Against scipy, over entries that are read off the whole truth; and drawn wide enough, it is the whole one."""
    module = network("llama")
    model, given = wrapped(module), attrib.pair(CLEAN, CORRUPTED)
    true = attrib.explain(model, given, "activation_patching", ANSWER).values
    estimate = attrib.explain(model, given, "attribution_patching", ANSWER)
    fractions = []
    found = attrib.sampled_correlation(
        model, given, estimate, sites=30, seed=4, on_progress=lambda fraction, _: fractions.append(fraction)
    )
    places = [(i, estimate.sites.index(e.site), e.position) for i, e in zip(found.pairs, found.entries, strict=True)]
    assert len(set(places)) == len(places) == 30
    assert set(found.pairs) == {0, 1} and fractions == sorted(fractions) and fractions[-1] == 1.0
    for place, entry in zip(places, found.entries, strict=True):
        assert entry.estimated == float(estimate.values[place])
        assert math.isclose(entry.true, float(true[place]), abs_tol=1e-10)
    columns = [[e.estimated for e in found.entries], [e.true for e in found.entries]]
    assert math.isclose(found.pearson.value, pearsonr(*columns).statistic, abs_tol=1e-9)
    assert math.isclose(found.spearman.value, spearmanr(*columns).statistic, abs_tol=1e-9)
    assert found.spearman.low < found.spearman.value < found.spearman.high
    r_of = lambda a, b, axis: pearsonr(a, b, axis=axis).statistic  # noqa: E731
    ends = bootstrap(columns, r_of, paired=True, n_resamples=2000, method="percentile", rng=1).confidence_interval
    assert abs(found.pearson.low - ends.low) < 0.03 and abs(found.pearson.high - ends.high) < 0.01
    again = attrib.sampled_correlation(model, given, estimate, sites=30, seed=4)
    assert again.entries == found.entries and again.pearson == found.pearson
    assert attrib.sampled_correlation(model, given, estimate, sites=30, seed=5).entries != found.entries
    # positions before the first difference have no effect in a causal model: they are no part of what is drawn from
    first = [int((a != b).nonzero()[0]) for a, b in zip(CLEAN, CORRUPTED, strict=True)]
    assert found.population == len(estimate.sites) * sum(CLEAN.shape[1] - at for at in first)
    whole = attrib.sampled_correlation(model, given, estimate, sites=10**6)
    live = [(i, slice(None), slice(at, None)) for i, at in enumerate(first)]
    r = pearsonr(*(torch.cat([v[place].flatten() for place in live]) for v in (estimate.values, true))).statistic
    assert len(whole.entries) == whole.population and math.isclose(whole.pearson.value, r, abs_tol=1e-9)
    assert f"{r:.3f}" in str(whole) and str(whole.population) in str(whole)


def test_a_sample_refuses_what_cannot_be_compared():
    model, given = wrapped(network("gpt2")), attrib.pair(CLEAN, CORRUPTED)
    estimate = attrib.explain(model, given, "relp", ANSWER)
    with pytest.raises(attrib.InputError, match="sites = 1"):
        attrib.sampled_correlation(model, given, estimate, sites=1)
    with pytest.raises(attrib.InputError, match="1 pairs were given, the result explains 2"):
        attrib.sampled_correlation(model, attrib.pair(CLEAN[:1], CORRUPTED[:1]), estimate)
    alike = attrib.pair(CLEAN, CLEAN)
    with pytest.raises(attrib.InputError, match="no effect at any position"):
        attrib.sampled_correlation(model, alike, attrib.explain(model, alike, "relp", ANSWER))
    edges = attrib.explain(model, given, attrib.RelP(edges=True), ANSWER)
    with pytest.raises(attrib.InputError, match=r"attrib\.circuit"):
        attrib.sampled_correlation(model, given, edges)


def test_verification_refuses_what_does_not_belong_together():
    model, given = wrapped(network("gpt2")), attrib.pair(CLEAN, CORRUPTED)
    estimate = attrib.explain(model, given, "relp", ANSWER)
    with pytest.raises(attrib.InputError, match="another pair"):
        attrib.verify_effects(model, attrib.pair(CORRUPTED, CLEAN), estimate)
    with pytest.raises(attrib.InputError, match=r"attrib\.pair"):
        attrib.verify_effects(model, "w4 w5", estimate)
    with pytest.raises(attrib.InputError, match="no pair 2"):
        attrib.verify_effects(model, given, estimate, index=2)
    own = attrib.explain(model, given, "relp", lambda logits: logits[:, 12])
    with pytest.raises(attrib.TargetError, match="function"):
        attrib.verify_effects(model, given, own)
    assert len(attrib.verify_effects(model, given, own, lambda logits: logits[:, 12], k=3).entries) == 3
