"""RelP and attribution patching against the plain definition: one site at a time, derivatives along the way."""

from __future__ import annotations

import pytest
import torch
from patching_oracles import (
    bias_free,
    linear,
    network,
    patched,
    read,
    spots,
    towards,
    with_relp_rules,
    wrapped,
)
from torch import Tensor, nn

import attrib
from attrib.binding import BoundTarget
from attrib.methods.base import Method, Question
from attrib.methods.patching_runs import Run, graded_run
from attrib.patching.places import Place
from attrib.patching.probing import structure_of
from attrib.patching.sites import all_sites, select
from attrib.rules.relp import relp_rules
from attrib.rules.shadow import shadow

FAMILIES = ("gpt2", "llama", "neox", "bert")
CLEAN = torch.tensor([[5, 9, 17, 23, 8, 3, 30], [6, 9, 18, 23, 4, 3, 31]])  # 3 is the mask
CORRUPTED = torch.tensor([[5, 9, 21, 23, 8, 3, 30], [6, 11, 18, 23, 24, 3, 31]])
ANSWER = attrib.LogitDiff(12, 25)
CLOSE = {"rtol": 1e-7, "atol": 1e-9}


def metric_of(family: str):
    place = 5 if family == "bert" else -1
    return lambda logits: logits[:, place, 12] - logits[:, place, 25]


def pair() -> attrib.Pair:
    return attrib.pair(CLEAN, CORRUPTED)


def explained(module: nn.Module, method: Method, given: attrib.Pair | None = None):
    return attrib.explain(wrapped(module), given or pair(), method, ANSWER)


def oracle(module: nn.Module, ruled: nn.Module, family: str, names: tuple[str, ...]) -> Tensor:
    """(batch, site, position), a run and a derivative for each site."""
    found = []
    for name in names:
        layer = int(name.split(".")[1])
        clean = read(module, spots(module, family, layer)[name], lambda: module(CLEAN))
        found.append(towards(ruled, spots(ruled, family, layer)[name], CORRUPTED, clean, metric_of(family)))
    return torch.stack(found, 1)


def names_of(module: nn.Module, family: str) -> tuple[str, ...]:
    return tuple(name for layer in range(2) for name in spots(module, family, layer))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_attribution_patching_is_the_derivative_towards_the_clean_run(family, attention):
    module = network(family, attention)
    names = names_of(module, family)
    result = explained(module, attrib.AttributionPatching(sites=names))
    assert result.sites == names
    expected = oracle(module, module, family, names)
    assert (expected != 0).any(2).any(0).sum() > len(names) - 3, "an oracle of zeros would prove nothing"
    torch.testing.assert_close(result.values, expected, **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_relp_is_that_derivative_under_its_rules(family):
    module = network(family)
    ruled, names = with_relp_rules(module), names_of(module, family)
    torch.testing.assert_close(ruled(CLEAN).logits, module(CLEAN).logits)
    result = explained(module, attrib.RelP(sites=names))
    torch.testing.assert_close(result.values, oracle(module, ruled, family, names), **CLOSE)
    assert not result.coverage.uncovered
    plain = explained(module, attrib.AttributionPatching(sites=names))
    assert (result.values - plain.values).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_metrics_are_those_of_the_two_runs(family):
    module = network(family)
    result = explained(module, attrib.RelP())
    metric = metric_of(family)
    with torch.no_grad():
        clean, corrupted = metric(module(CLEAN).logits), metric(module(CORRUPTED).logits)
    torch.testing.assert_close(result.parts["metric_clean"], clean)
    torch.testing.assert_close(result.parts["metric_corrupted"], corrupted)
    torch.testing.assert_close(result.score, clean - corrupted)
    torch.testing.assert_close(result.normalised() * (clean - corrupted)[:, None, None], result.values)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_stream_between_attention_and_mlp(family):
    """resid_mid has no module of its own: moving it is moving what attention adds, as the stream before is fixed."""
    module = network(family)
    names = ("resid_mid.0", "resid_mid.1")
    result = explained(module, attrib.AttributionPatching(sites=names))
    for i, name in enumerate(names):
        layer = int(name[-1])
        own = spots(module, family, layer)
        before, added = own[f"resid_pre.{layer}"], own[f"attn_out.{layer}"]
        clean = sum(read(module, spot, lambda: module(CLEAN)) for spot in (before, added))
        corrupted_before = read(module, before, lambda: module(CORRUPTED))
        expected = towards(module, added, CORRUPTED, clean - corrupted_before, metric_of(family))
        torch.testing.assert_close(result.values[:, i], expected, **CLOSE)


@pytest.mark.parametrize("family", ["gpt2", "neox", "bert"])
def test_on_a_linear_model_all_estimates_are_exact(family):
    module = linear(family)
    names = tuple(n for n in names_of(module, family) if n.rpartition(".")[2] not in "qk")
    exact = torch.zeros(2, len(names), CLEAN.shape[1], dtype=torch.float64)
    metric = metric_of(family)
    with torch.no_grad():
        base = metric(module(CORRUPTED).logits)
    for i, name in enumerate(names):
        spot = spots(module, family, int(name.split(".")[1]))[name]
        clean = read(module, spot, lambda: module(CLEAN))
        for position in range(CLEAN.shape[1]):
            exact[:, i, position] = patched(module, spot, CORRUPTED, clean, position, metric) - base
    assert exact.abs().amax() > 1e-3
    methods = (
        attrib.AttributionPatching(sites=names),
        attrib.AttributionPatching(sites=names, integrated=3),
        attrib.RelP(sites=names),
        attrib.RelP(sites=names, attention="constant"),
    )
    for method in methods:
        torch.testing.assert_close(explained(module, method).values, exact, rtol=1e-9, atol=1e-11)
    noising = attrib.AttributionPatching(sites=names, direction="noising")
    torch.testing.assert_close(explained(module, noising).values, -exact, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "method", [attrib.RelP(), attrib.AttributionPatching(), attrib.AttributionPatching(integrated=2)]
)
def test_identical_prompts_have_no_effects(method):
    result = explained(network("gpt2"), method, attrib.pair(CLEAN, CLEAN))
    assert (result.values == 0).all() and (result.score == 0).all()
    assert any("identical" in note for note in result.notes)
    with pytest.raises(attrib.PromptPairError, match="in both runs"):
        result.normalised()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_relevance_is_conserved_over_every_cut_with_the_attention_rule(family):
    """Σ a ⊙ C over a whole residual stream is the metric: asked with a clean run whose activations are all zero."""
    module = bias_free(network(family))
    if family == "gpt2":
        module.lm_head.bias = None
    cuts = tuple(f"{kind}.{layer}" for layer in range(2) for kind in ("resid_pre", "resid_mid", "resid_post"))
    for attention in ("eager", "sdpa"):
        subject = network(family, attention)
        subject.load_state_dict(module.state_dict())
        totals = _activation_times_coefficient(subject, attrib.RelP(sites=cuts, attention="constant"))
        with torch.no_grad():
            metric = metric_of(family)(subject(CORRUPTED).logits)
        torch.testing.assert_close(totals, metric[:, None].expand(-1, len(cuts)), rtol=1e-4, atol=1e-5)
        leaking = _activation_times_coefficient(subject, attrib.RelP(sites=cuts))
        assert ((leaking - metric[:, None]).abs() > 1e-3).any()


def _activation_times_coefficient(module: nn.Module, method: attrib.RelP) -> Tensor:
    """(batch, site): Σ a ⊙ C of the corrupted run."""
    sites = select(structure_of(wrapped(module)), method.sites)
    run = corrupted_run(module, [site.place for site in sites], method)
    return torch.stack([(run.values[p] * run.coefficients[p]).flatten(1).sum(1) for p in run.values], 1)


def corrupted_run(module: nn.Module, places: list[Place], method: attrib.RelP) -> Run:
    model = wrapped(module)
    target = BoundTarget("difference", torch.tensor([12, 12]), torch.tensor([25, 25]))
    encoded = model.encode(CORRUPTED)
    question = Question(model, shadow(module), encoded.x, target, extra=encoded.extra)
    return graded_run(question, places, encoded.x, relp_rules(method.mode, method.attention))


def test_the_activation_rule_acts():
    """With and without it, coefficients before an MLP differ, and by exactly what its rule says."""
    module = network("gpt2")
    sites = ("resid_mid.*",)
    full = explained(module, attrib.RelP(sites=sites))
    late = explained(module, attrib.RelP(sites=sites, mode="published_late"))
    assert (full.values - late.values).abs().max() > 0.01 * full.values.abs().max()
    assert full.coverage.ruled.get("elementwise_activation", 0) == 2
    assert late.coverage.ruled.get("elementwise_activation", 0) == 0
    published = explained(module, attrib.RelP(sites=sites, mode="published"))
    torch.testing.assert_close(published.values, full.values, rtol=1e-2, atol=1e-4)
    assert not torch.equal(published.values, full.values)


@pytest.mark.parametrize("family", FAMILIES)
def test_published_late_is_the_norm_rule_alone_where_nothing_is_gated(family):
    if family == "llama":  # whose half rule works late too
        return
    module, names = network(family), names_of(network(family), family)
    ruled = with_relp_rules(module)
    for part, plain in zip(ruled.modules(), module.modules(), strict=True):
        if type(part).__name__ in ("NewGELUActivation", "GELUActivation", "GELU"):
            part.forward = plain.forward
    late = explained(module, attrib.RelP(sites=names, mode="published_late"))
    torch.testing.assert_close(late.values, oracle(module, ruled, family, names), **CLOSE)


def test_an_activation_at_exactly_zero_has_its_slope():
    """y/x at x = 0 is ½ for GELU; the authors' code puts 0 there."""
    module = network("gpt2")
    fc = module.transformer.h[1].mlp.c_fc
    fc.weight.data[:, 5] = 0
    fc.bias.data[5] = 0
    before = Place("transformer.h.1.mlp.c_fc", "output")
    values = {
        mode: corrupted_run(module, [before], attrib.RelP(mode=mode)).coefficients[before][..., 5]
        for mode in ("relp", "published", "published_late")
    }
    torch.testing.assert_close(values["relp"], values["published_late"])
    assert values["relp"].abs().max() > 1e-3
    assert (values["published"] == 0).all()


def test_integrated_gradients_of_a_whole_tensor_are_complete():
    """With many steps, the effects of all positions of a cut add up to the metric's change."""
    result = explained(
        network("gpt2"), attrib.AttributionPatching(sites=("resid_pre.1", "resid_mid.0"), integrated=200)
    )
    torch.testing.assert_close(result.values.sum(2), result.score[:, None].expand(-1, 2), rtol=2e-2, atol=2e-2)
    plain = explained(network("gpt2"), attrib.AttributionPatching(sites=("resid_pre.1", "resid_mid.0")))
    error = (plain.values.sum(2) - plain.score[:, None]).abs()
    assert (error > (result.values.sum(2) - result.score[:, None]).abs()).all()


def test_every_site_that_is_listed_can_be_read():
    for family in FAMILIES:
        subject = wrapped(network(family))
        names = tuple(site.name for site in all_sites(structure_of(subject)))
        result = attrib.explain(subject, pair(), attrib.RelP(sites=names), ANSWER)
        assert result.sites == names and result.values.isfinite().all()
