"""Activation patching against one whole forward for each site and position, and what it leaves out on the way."""

from __future__ import annotations

import copy

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
    linear,
    network,
    patched,
    read,
    spots,
    tokenizer,
    wrapped,
)
from torch import nn

import attrib
from attrib.patching import exact, replay, tail
from attrib.patching.blocks import Call
from attrib.patching.fused import fuse_activations
from attrib.patching.probing import structure_of
from attrib.patching.prompt import Patch, Prompt, Recomputation
from attrib.patching.sites import all_sites
from attrib.rules.shadow import shadow
from attrib.targets import BoundTarget

ALL = ("resid_*.*", "attn_out.*", "mlp_out.*", "head.*.*", "head.*.*.*", "neuron.*", "neuron.*.7", "embed")


def metric_of(family):
    place = 5 if family == "bert" else -1
    return lambda logits: logits[:, place, 12] - logits[:, place, 25]


def oracle(module, family, base, other, names):
    """(batch, site, position): the base run with each site and position of the other run, a forward for each."""
    metric = metric_of(family)
    found = torch.empty(len(base), len(names), base.shape[1], dtype=next(module.parameters()).dtype)
    with torch.no_grad():
        unpatched = metric(module(base).logits)
    for i, name in enumerate(names):
        spot = spots(module, family, int(name.split(".")[1]))[name]
        with torch.no_grad():
            value = read(module, spot, lambda: module(other))
        for position in range(base.shape[1]):
            found[:, i, position] = patched(module, spot, base, value, position, metric) - unpatched
    return found


def known(module, family):
    return [name for layer in range(2) for name in spots(module, family, layer)]


def replayed(result):
    """No note says that whole forwards were needed."""
    return not any("whole forward" in note for note in result.notes)


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


def counted(monkeypatch):
    """Token positions of blocks that are computed for patches."""
    done = []
    original = replay.Replay.__init__

    def counting(self, *args, **kwargs):
        original(self, *args, **kwargs)
        tick = self.tick
        object.__setattr__(self, "tick", lambda n: (done.append(n), tick(n)))

    monkeypatch.setattr(replay.Replay, "__init__", counting)
    return done


def test_only_what_a_patch_changes_is_computed(monkeypatch):
    done = counted(monkeypatch)
    tokens, layers, heads = 7, 2, 4
    first, second = torch.arange(4, 11)[None], torch.arange(14, 21)[None]  # no token in common
    explained(network("gpt2"), attrib.ActivationPatching(sites="head.*.*"), first, second)
    whole = heads * layers * tokens * layers * tokens
    assert sum(done) < 0.4 * whole
    done.clear()
    second = torch.cat([first[:, :-1], second[:, -1:]], 1)  # the last token alone differs
    explained(network("gpt2"), attrib.ActivationPatching(sites=ALL), first, second)
    sites = len(explained(network("gpt2"), attrib.RelP(sites=ALL), first, second).sites)
    assert sum(done) <= sites * layers + 10 * layers * tokens


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


def test_blocks_that_cannot_be_replayed_run_whole_forwards_and_say_so(monkeypatch):
    module = network("gpt2")
    names = known(module, "gpt2")
    expected = oracle(module, "gpt2", CORRUPTED, CLEAN, names)

    def refuse(*_):
        raise exact.NotReplayable("something happens between two blocks")

    monkeypatch.setattr(exact, "recorded", refuse)
    result = explained(module, attrib.ActivationPatching(sites=tuple(names)))
    assert any("whole forward" in note and "between two blocks" in note for note in result.notes)
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("broken", ["mask", "prefix"])
def test_a_replay_that_is_wrong_is_noticed(monkeypatch, broken):
    """The proof on every prompt: keys of other positions and no mask are found out."""
    module = network("llama", "sdpa")
    names = tuple(name for name in known(module, "llama") if name.startswith("head"))
    if broken == "mask":
        tril = torch.Tensor.tril
        monkeypatch.setattr(torch.Tensor, "tril", lambda self, diagonal=0: tril(self, diagonal + 7))
    else:
        prefix = Call.prefix

        def swapped(self, start, of):
            right = prefix(self, start, of)
            return type(right)(right.keys, right.values.flip(2))

        monkeypatch.setattr(Call, "prefix", swapped)
    proved, found = exact._proved, []

    def noted(*given, causal):
        replay = proved(*given, causal=causal)
        found.append(causal)
        return replay

    monkeypatch.setattr(exact, "_proved", noted)
    result = explained(module, attrib.ActivationPatching(sites=names))
    assert found and not any(found), "without keys of the tokens before: all positions from the patched layer on"
    monkeypatch.undo()
    right = explained(module, attrib.ActivationPatching(sites=names))
    assert replayed(right)
    torch.testing.assert_close(result.values, right.values, rtol=0, atol=1e-10)


def test_cancelling_stops_between_two_blocks(monkeypatch):
    done, module = counted(monkeypatch), network("gpt2")
    before = copy.deepcopy(module.state_dict())

    def cancel(fraction, message):
        if fraction > 0.3:
            raise attrib.Cancelled("enough")

    with pytest.raises(attrib.Cancelled):
        explained(module, attrib.ActivationPatching(sites=ALL), on_progress=cancel)
    cancelled = sum(done)
    done.clear()
    reports = []
    explained(module, attrib.ActivationPatching(sites=ALL), on_progress=lambda fraction, _: reports.append(fraction))
    assert 0 < cancelled < 0.6 * sum(done)
    assert reports == sorted(reports) and reports[-1] == 1 and len(set(reports)) > 10
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ for m in module.modules())


def test_activations_that_equal_torchs_are_fused_and_others_are_not():
    class Cube(nn.Module):
        def forward(self, x):
            return x + 1e-9 * x**3

    names = ("gelu_new", "gelu_fast", "gelu", "silu", "quick_gelu", "mish", "relu2")
    twin = nn.ModuleDict({name: tr.activations.ACT2FN[name] for name in names} | {"cube": Cube()})
    x = torch.randn(1000, dtype=torch.float64) * 3
    before = {name: module(x) for name, module in twin.items()}
    fuse_activations(twin)
    assert {name for name, module in twin.items() if "forward" in module.__dict__} == {
        "gelu_new", "gelu_fast", "gelu", "silu",
    }  # fmt: skip
    for name, module in twin.items():
        torch.testing.assert_close(module(x), before[name], rtol=0, atol=1e-11)


def test_a_head_that_cannot_be_cut_computes_all_tokens(monkeypatch):
    module = network("llama", "sdpa")
    names = tuple(name for name in known(module, "llama") if name.startswith("head"))
    right = explained(module, attrib.ActivationPatching(sites=names))
    monkeypatch.setattr(tail, "_renumbered", lambda target: BoundTarget("logit", positive=torch.tensor([0])))
    whole = explained(module, attrib.ActivationPatching(sites=names))
    assert replayed(right) and replayed(whole)
    torch.testing.assert_close(whole.values, right.values, rtol=0, atol=1e-10)


def test_logits_that_are_picked_behind_the_head_need_it_whole():
    """Of a head cut to two tokens no other can be picked, which torch calls an index that is out of bounds."""
    module = network("llama", "sdpa")
    order = torch.arange(module.lm_head.out_features).roll(1)
    module.lm_head.register_forward_hook(lambda head, args, logits: logits[..., order])
    names = tuple(name for name in known(module, "llama") if name.startswith("head"))
    found = explained(module, attrib.ActivationPatching(sites=names))
    expected = oracle(module, "llama", CORRUPTED, CLEAN, found.sites)
    assert replayed(found)
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-10)


def test_a_head_that_fails_for_another_reason_says_so():
    module = network("llama", "sdpa")

    def refuse(head, args, logits):
        if logits.shape[-1] < 10:
            raise RuntimeError("the licence of this head has expired")

    module.lm_head.register_forward_hook(refuse)
    names = tuple(known(module, "llama"))
    found = explained(module, attrib.ActivationPatching(sites=names))
    assert any("whole forward" in note and "licence" in note for note in found.notes)
    torch.testing.assert_close(found.values, oracle(module, "llama", CORRUPTED, CLEAN, names), rtol=0, atol=1e-10)
