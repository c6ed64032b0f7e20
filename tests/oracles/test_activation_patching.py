"""Activation patching against one whole forward for each site and position."""

from __future__ import annotations

import pytest
import tiny_transformers as tiny
import torch
import transformers as tr
from patching_oracles import (
    ANSWER,
    CLEAN,
    CORRUPTED,
    SIZES,
    explained,
    known,
    linear,
    metric_of,
    network,
    oracle,
    patched,
    read,
    replayed,
    spots,
    tokenizer,
    wrapped,
)

import attrib
from attrib.binding import BoundTarget
from attrib.patching import exact
from attrib.patching.probing import structure_of
from attrib.patching.prompt import Patch, Prompt, Recomputation
from attrib.patching.sites import all_sites
from attrib.rules.shadow import shadow


@pytest.mark.parametrize(("attention", "direction"), [("eager", "denoising"), ("sdpa", "noising")])
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "bert"])
def test_equals_one_forward_for_each_site_and_position(family, direction, attention):
    module = network(family, attention)
    names = known(module, family)
    result = explained(module, attrib.ActivationPatching(sites=tuple(names), direction=direction))
    runs = (CORRUPTED, CLEAN) if direction == "denoising" else (CLEAN, CORRUPTED)
    assert replayed(result) and list(result.sites) == names
    torch.testing.assert_close(result.values, oracle(module, family, *runs, names), rtol=0, atol=1e-10)
    assert result.values.abs().max() > 0.1
    metric = metric_of(family)
    with torch.no_grad():
        torch.testing.assert_close(result.parts["metric_clean"], metric(module(CLEAN).logits))
        torch.testing.assert_close(result.score, metric(module(CLEAN).logits) - metric(module(CORRUPTED).logits))


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "bert"])
def test_equals_it_in_single_precision_too(family):
    module = network(family, "sdpa").float()
    names = known(module, family)
    result = explained(module, attrib.ActivationPatching(sites=tuple(names)))
    expected = oracle(module, family, CORRUPTED, CLEAN, names)
    assert replayed(result)
    assert (result.values - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))


def both_ways(module, tokens, run_of=lambda extra: extra):
    """(replayed, whole forwards, notes) of all sites and positions of a small model of any family."""
    model = tiny.Stub(module)
    model.embeddings = getattr(module, "encoder", module).get_input_embeddings()
    structure, x = structure_of(model), tiny.embeddings(2, tokens)
    target = BoundTarget("difference", positive=torch.tensor([1]), negative=torch.tensor([0]))
    base, other = (Prompt(model, structure, row[None], {}, target) for row in x)
    twin = shadow(module)
    sites = all_sites(structure)
    entries = [(site, position) for site in sites for position in range(tokens)]
    with torch.no_grad():
        found = exact.true_effects(base, other, twin, entries, 8, lambda fraction: None)
        values, _ = other.values(twin, sites)
        patches = [Patch(site, p, values[site.place][0, p, site.part]) for site, p in entries]
        whole = Recomputation(twin, base, 64, lambda done: None).scores(patches) - base.scores(twin, base.x)
    return found.effects, whole, found.notes


@pytest.mark.parametrize("tokens", [4, 8])  # as many as heads, and as a head is wide
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_is_replayed_exactly(family, attention, tokens):
    found, whole, notes = both_ways(tiny.build(family, attention), tokens)
    assert notes == ()
    # some cast to float32 inside, where another batch size rounds otherwise
    assert (found - whole).abs().max() < 1e-10 and whole.abs().max() > 0.1


@pytest.mark.parametrize("family", ["gpt2", "mistral", "bert"])
@pytest.mark.parametrize("tokens", [1, 2])
def test_very_short_prompts(family, tokens):
    found, whole, notes = both_ways(tiny.build(family, "sdpa"), tokens)
    assert notes == () and (found - whole).abs().max() < 1e-10


def test_a_window_of_attention_is_kept():
    """Mistral's tokens see the four before them; a mask of all tokens would give other numbers."""
    narrow, wide = tiny.build("mistral", "sdpa"), tiny.build("mistral", "sdpa")
    wide = tr.AutoModelForCausalLM.from_config(tr.MistralConfig(**tiny.GROUPED, sliding_window=None)).double().eval()
    wide.load_state_dict(narrow.state_dict())
    assert (both_ways(narrow, 8)[0] - both_ways(wide, 8)[0]).abs().max() > 1e-3


def test_on_a_linear_model_all_estimates_are_true():
    module = linear("gpt2")
    results = [explained(module, name) for name in ("relp", "attribution_patching", "activation_patching")]
    for result in results[:2]:
        torch.testing.assert_close(result.values, results[2].values, rtol=1e-8, atol=1e-9)


def test_identical_prompts_have_no_effect_and_no_run():
    module, calls = network("llama"), []
    model = wrapped(module)
    result = attrib.explain(model, attrib.pair(CLEAN, CLEAN), "activation_patching", ANSWER)
    assert (result.values == 0).all() and any("identical" in note for note in result.notes)
    module.register_forward_hook(lambda *_: calls.append(1))
    attrib.explain(model, attrib.pair(CLEAN, CLEAN), "activation_patching", ANSWER)
    assert len(calls) <= 6  # both runs of both pairs, and what is needed to settle the rest


def test_positions_behind_the_one_that_is_read_have_no_effect():
    module = network("llama")
    names = [name for name in known(module, "llama") if name.startswith(("resid", "mlp"))]
    result = explained(
        module, attrib.ActivationPatching(sites=tuple(names)), CORRUPTED, CLEAN, attrib.LogitDiff(12, 25, position=3)
    )
    alone = explained(module, attrib.ActivationPatching(sites=tuple(names)), CORRUPTED[:, :4], CLEAN[:, :4])
    assert replayed(result) and (result.values[:, :, 4:] == 0).all()
    torch.testing.assert_close(result.values[:, :, :4], alone.values, rtol=0, atol=1e-10)


WHOLE_HEAD = {"class": 9, "log-probability": attrib.LogProb(9), "best": None, "function": lambda y: y.square().sum(1)}


@pytest.mark.parametrize("target", WHOLE_HEAD.values(), ids=WHOLE_HEAD)
def test_targets_that_need_the_whole_head(target):
    module = network("gpt2")
    index = target if isinstance(target, int) else 9
    if target is None:
        index = explained(module, "relp", target=None).target[0]["index"]
    reads = {
        attrib.LogProb: lambda logits: logits.log_softmax(-1)[:, -1, index],
        int: lambda logits: logits[:, -1, index],
        type(None): lambda logits: logits[:, -1, index],
    }
    metric = reads.get(type(target), lambda logits: logits[:, -1].square().sum(1))
    result = explained(module, attrib.ActivationPatching(sites="mlp_out.0"), CLEAN[:1], CORRUPTED[:1], target)
    spot = spots(module, "gpt2", 0)["mlp_out.0"]
    with torch.no_grad():
        clean, base = read(module, spot, lambda: module(CLEAN[:1])), metric(module(CORRUPTED[:1]).logits)
    for position in range(7):
        expected = patched(module, spot, CORRUPTED[:1], clean, position, metric) - base
        torch.testing.assert_close(result.values[:, 0, position], expected, rtol=0, atol=1e-9)


def test_pairs_of_any_length_together_as_alone():
    module = network("llama")
    clean, corrupted = [[5, 6, 7, 8], [9, 10], [11, 12, 13]], [[5, 16, 7, 8], [19, 10], [11, 12, 23]]
    together = explained(module, "activation_patching", clean, corrupted)
    for row, (first, second) in enumerate(zip(clean, corrupted, strict=True)):
        alone = explained(module, "activation_patching", first, second)
        torch.testing.assert_close(together.values[row, :, : len(first)], alone.values[0], rtol=0, atol=1e-10)
        assert (together.values[row, :, len(first) :] == 0).all()


def test_a_classifier_that_takes_one_row_at_a_time():
    """LLaMA's classifier has no padding token; a replayed batch has many rows."""
    torch.manual_seed(0)
    config = tr.LlamaConfig(**SIZES | {"num_key_value_heads": 2, "pad_token_id": None}, num_labels=3)
    module = tr.LlamaForSequenceClassification(config).double().eval()
    for parameter in module.parameters():
        parameter.data += torch.randn_like(parameter) * 0.3
    model = attrib.wrap(module, tokenizer=tokenizer())
    given = attrib.pair(CLEAN, CORRUPTED)
    result = attrib.explain(model, given, attrib.ActivationPatching(sites=("resid_post.*",)), attrib.LogitDiff(0, 1))
    assert replayed(result)

    def metric(logits):
        return logits[:, 0] - logits[:, 1]

    for layer in range(2):
        spot = (module.model.layers[layer], "output", slice(None))
        for position in range(7):
            with torch.no_grad():
                clean = read(module, spot, lambda: module(CLEAN[:1]))
                expected = patched(module, spot, CORRUPTED[:1], clean, position, metric)
                expected = expected - metric(module(CORRUPTED[:1]).logits)
            torch.testing.assert_close(result.values[:1, layer, position], expected, rtol=0, atol=1e-9)
