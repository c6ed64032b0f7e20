"""Replayed blocks: what is computed at all, when whole forwards are needed, and heads cut to two tokens."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers as tr
from patching_oracles import ALL, CLEAN, CORRUPTED, explained, known, network, oracle, replayed
from torch import nn

import attrib
from attrib.binding import BoundTarget
from attrib.patching import exact, replay, tail
from attrib.patching.calls import Call, NotReplayable, alone
from attrib.patching.fused import fuse_activations


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


def test_blocks_that_cannot_be_replayed_run_whole_forwards_and_say_so(monkeypatch):
    module = network("gpt2")
    names = known(module, "gpt2")
    expected = oracle(module, "gpt2", CORRUPTED, CLEAN, names)

    def refuse(*_):
        raise NotReplayable("something happens between two blocks")

    monkeypatch.setattr(exact, "recorded", refuse)
    result = explained(module, attrib.ActivationPatching(sites=tuple(names)))
    assert any("whole forward" in note and "between two blocks" in note for note in result.notes)
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-10)


def test_only_what_a_models_own_code_raises_is_taken_for_a_block_that_cannot_run_alone():
    class Failing(nn.Module):
        def forward(self, error):
            raise error

    with pytest.raises(NotReplayable, match="KeyError: 'mask'"), alone():
        Failing()(KeyError("mask"))
    for error in (attrib.UnsupportedModel("no"), torch.OutOfMemoryError("full")):
        with pytest.raises(type(error)), alone():
            Failing()(error)
    with pytest.raises(ZeroDivisionError), alone():
        assert 1 / 0


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
