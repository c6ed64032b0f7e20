"""Heads that no matrix reads side by side, layers with heads of their own, a stream of several rows a position: against
whole forwards in which the model's own functions are wrapped here."""

from __future__ import annotations

import sys
from functools import cache

import pytest
import text_families
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

import attrib
from attrib.patching.probing import structure_of
from attrib.patching.sites import all_sites
from tests.patching.short_pair import ANSWER, CLEAN, CORRUPTED, LAST, PAIR, rows

SMALL = text_families.SMALL | {"max_position_embeddings": 64}
GROUPED = text_families.LLAMA
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LORA = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
SIZES = {
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    "diffllama": GROUPED,
    "convbert": SMALL | {"embedding_size": 32},
    "jetmoe": GROUPED | EXPERTS | {"kv_channels": 8},
    "gemma4_unified_text": GROUPED
    | {"layer_types": ["sliding_attention", "full_attention"], "head_dim": 8, "attention_k_eq_v": True},
    "mimo_v2_flash": GROUPED
    | {"layer_types": ["full_attention", "sliding_attention"], "mlp_layer_types": ["dense", "dense"], "head_dim": 8}
    | {"v_head_dim": 8, "num_key_value_heads": 2},
    "doge": GROUPED,
    "minimax": GROUPED | EXPERTS | {"layer_types": ["full_attention", "linear_attention"], "head_dim": 8},
    "hy_v4": GROUPED | LORA | {"num_key_value_heads": 4, "mlp_layer_types": ["dense", "dense"]},
    "prophetnet": {"hidden_size": 32, "num_decoder_layers": 2, "num_decoder_attention_heads": 4, "decoder_ffn_dim": 48}
    | {"num_encoder_layers": 2, "num_encoder_attention_heads": 4, "encoder_ffn_dim": 48, "is_decoder": True}
    | {"add_cross_attention": False, "max_position_embeddings": 64},
}


def stacked(tensor, p):
    """A position's rows of three streams, one behind the other."""
    return tensor[0].unflatten(0, (3, -1))[:, p]


RELATIVE, JET = "transformer.layer.1.rel_attn", "model.layers.1.self_attention.experts"
LAYERS, DECODER = "model.layers", "prophetnet.decoder.layers"
# family → site → (module, its function, which argument, None: what it returns; its part at a position)
BY_HAND = {
    "xlnet": {
        "head.1.2.q": (RELATIVE, "rel_attn_core", 0, lambda t, p: t[p, 0, 2]),
        "head.1.1.k": (RELATIVE, "rel_attn_core", 1, lambda t, p: t[p, 0, 1]),
        "head.1.3.v": (RELATIVE, "rel_attn_core", 2, lambda t, p: t[p, 0, 3]),
        "head.1.2": (RELATIVE, "rel_attn_core", None, lambda t, p: t[p, 0, 2]),
    },
    "diffllama": {
        "head.1.1.q": (f"{LAYERS}.1.self_attn.q_proj", "forward", None, rows(8, 16)),
        "head.1.1.k": (f"{LAYERS}.1.self_attn.k_proj", "forward", None, rows(8, 16)),
        "head.1.0.v": (f"{LAYERS}.1.self_attn.v_proj", "forward", None, rows()),
    },
    "convbert": {
        "head.1.1": ("convbert.encoder.layer.1.attention.output.dense", "forward", 0, rows(8, 16)),
        "head.0.1.v": ("convbert.encoder.layer.0.attention.self.value", "forward", None, rows(8, 16)),
    },
    "jetmoe": {
        "head.1.3.q": (JET, "map", None, lambda t, p: t[0, p, 1, 8:]),
        "head.1.2": (JET, "reduce", 0, lambda t, p: t[0, p, 1, :8]),
        "head.0.1.k": (f"{LAYERS}.0.self_attention.kv_proj", "forward", None, rows(8, 16)),
    },
    "gemma4_unified_text": {  # keys and values of its full attention are one projection, of wider heads
        "head.1.0.k": (f"{LAYERS}.1.self_attn.k_norm", "forward", None, lambda t, p: t[0, p, 0]),
        "head.1.0.v": (f"{LAYERS}.1.self_attn.v_norm", "forward", None, lambda t, p: t[0, p, 0]),
        "head.0.1.k": (f"{LAYERS}.0.self_attn.k_proj", "forward", None, rows(8, 16)),
    },
    "mimo_v2_flash": {
        "head.0.1.k": (f"{LAYERS}.0.self_attn.k_proj", "forward", None, rows(8, 16)),
        "head.1.3.v": (f"{LAYERS}.1.self_attn.v_proj", "forward", None, rows(24, 32)),
    },
    "doge": {
        "head.1.1.k": (f"{LAYERS}.1.self_attn.k_proj", "forward", None, rows(8, 16)),
        "head.1.0.v": (f"{LAYERS}.1.self_attn.v_proj", "forward", None, rows(0, 8)),
    },
    "minimax": {"resid_mid.0": (f"{LAYERS}.0.post_attention_layernorm", "forward", None, rows())},
    "hy_v4": {
        "resid_post.0": (f"{LAYERS}.0", "forward", None, lambda t, p: t[0, p]),
        "head.1.2": (f"{LAYERS}.1.self_attn.o_proj", "forward", 0, rows(16, 24)),
        "neuron.0": (f"{LAYERS}.0.mlp.down_proj", "forward", 0, rows()),
    },
    "prophetnet": {
        "resid_pre.0": (f"{DECODER}.0", "forward", 0, stacked),
        "attn_out.1": (f"{DECODER}.1.self_attn", "forward", None, stacked),
        "neuron.0": (f"{DECODER}.0.feed_forward.output", "forward", 0, stacked),
        "mlp_out.1": (f"{DECODER}.1.feed_forward", "forward", None, stacked),
        "head.0.1.k": (f"{DECODER}.0.self_attn.key_proj", "forward", None, rows(8, 16)),
    },
}


@cache
def wrapped(family: str):
    more = {"vocab_size": text_families.ROWS, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **SIZES[family], **more)
    config._experts_implementation = "eager"
    kind = AutoModelForMaskedLM if family == "convbert" else AutoModelForCausalLM
    module = kind.from_config(config, attn_implementation="eager").double().eval()
    return attrib.wrap(text_families.redrawn(module), tokenizer=text_families.byte_level())


def metric(module, tokens, where, visit, monkeypatch):
    """The metric while `visit` is called with the tensor at `where`, to return what takes its place."""
    path, name, which, _ = where
    owner = module.get_submodule(path)
    own = getattr(owner, name)

    def function(*args, **kwargs):
        if which is not None:
            return own(*args[:which], visit(args[which]), *args[which + 1 :], **kwargs)
        made = own(*args, **kwargs)
        return (visit(made[0]), *made[1:]) if isinstance(made, tuple) else visit(made)

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setitem(owner.__dict__, name, function)
        logits = module(torch.tensor([tokens])).logits[0, LAST]
    return float(logits[12] - logits[25])


def expected(module, where, monkeypatch):
    """For every position, what the metric does when that part of the corrupted run is the clean one's."""
    kept, part = [], where[3]
    metric(module, CLEAN, where, lambda tensor: kept.append(tensor.clone()) or tensor, monkeypatch)
    base = metric(module, CORRUPTED, where, lambda tensor: tensor, monkeypatch)

    def written(tensor, position):
        tensor = tensor.clone()
        part(tensor, position).copy_(part(kept[0], position))
        return tensor

    return [metric(module, CORRUPTED, where, lambda t, p=p: written(t, p), monkeypatch) - base for p in range(LAST + 1)]


@pytest.mark.parametrize("family", BY_HAND)
def test_patches_are_those_of_whole_forwards(family, monkeypatch):
    model, names = wrapped(family), tuple(BY_HAND[family])
    found = attrib.explain(model, PAIR, attrib.ActivationPatching(sites=names), ANSWER).values[0]
    for values, where in zip(found, BY_HAND[family].values(), strict=True):
        exact = 1e-5 if family == "hy_v4" else 1e-10  # it computes in single precision whatever it is given
        torch.testing.assert_close(
            values, values.new_tensor(expected(model.module, where, monkeypatch)), rtol=0, atol=exact
        )
    assert found.abs().amax(1).min() > 1e-4


def test_heads_of_a_difference_of_two_maps(monkeypatch):
    """DiffLlama's heads are its maps, before they are subtracted: what two calls of attention put out."""
    model, kept, calls = wrapped("diffllama"), [], []
    code = sys.modules[type(model.module).__module__]
    own = code.eager_attention_forward

    def run(tokens, change):
        calls.clear()

        def attention(*args, **kwargs):
            made, weights = own(*args, **kwargs)
            calls.append(made)
            return change(len(calls) - 1, made.clone()), weights

        with monkeypatch.context() as patch, torch.no_grad():
            patch.setattr(code, "eager_attention_forward", attention)
            logits = model.module(torch.tensor([tokens])).logits[0, LAST]
        return float(logits[12] - logits[25])

    run(CLEAN, lambda call, made: kept.append(made) or made)
    base = run(CORRUPTED, lambda call, made: made)
    found = attrib.explain(model, PAIR, attrib.ActivationPatching(sites="head.1.2"), ANSWER).values[0, 0]
    for position in range(LAST + 1):

        def change(call, made, position=position):
            if call in (2, 3):  # of the second layer
                made[0, position, 2] = kept[call][0, position, 2]
            return made

        assert float(found[position]) == pytest.approx(run(CORRUPTED, change) - base, abs=1e-10)
    assert found.abs().max() > 1e-3


@pytest.mark.parametrize(("family", "norm"), [("doge", "post_attention_layernorm"), ("hy_v4", "ffn_hc")])
def test_the_stream_between_attention_and_mlp_and_what_joins_it(family, norm):
    """By what it is made of: attention's contribution is the stream behind it less that in front, and so on."""
    model = wrapped(family)
    block = model.module.get_submodule(f"{LAYERS}.0")
    parts = {}

    def run(tokens, name=None, position=0):
        def at(number, tensor):
            if name is None:
                parts.setdefault(tuple(tokens), {})[number] = tensor.clone()
            elif name == number:
                change = change_of(name, position)
                tensor[:, position] += change  # in place: what goes past reads it too

        hooks = [
            block.register_forward_pre_hook(lambda _, args: at("pre", args[0])),
            block.get_submodule(norm).register_forward_pre_hook(lambda _, args: at("mid", args[0])),
        ]
        with torch.no_grad():
            logits = model.module(torch.tensor([tokens])).logits[0, LAST]
        for hook in hooks:
            hook.remove()
        return float(logits[12] - logits[25])

    def change_of(name, position):
        return (parts[tuple(CLEAN)][name] - parts[tuple(CORRUPTED)][name])[:, position]

    run(CLEAN), run(CORRUPTED)
    base = run(CORRUPTED)
    asked = attrib.ActivationPatching(sites=("resid_pre.0", "resid_mid.0"))
    found = attrib.explain(model, PAIR, asked, ANSWER).values[0]
    exact = 1e-5 if family == "hy_v4" else 1e-10
    for number, name in enumerate(("pre", "mid")):
        for position in range(LAST + 1):
            assert float(found[number, position]) == pytest.approx(run(CORRUPTED, name, position) - base, abs=exact)
    assert found.abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("family", BY_HAND)
def test_every_site_is_scored_and_identical_prompts_give_zeros(family):
    model = wrapped(family)
    names = tuple(site.name for site in all_sites(structure_of(model)) if site.kind != "embed")
    for method in (attrib.ActivationPatching, attrib.AttributionPatching, attrib.RelP):
        same = attrib.explain(model, attrib.pair([CLEAN], [CLEAN]), method(sites=names), ANSWER)
        assert same.sites == names and not same.values.any()
    for method in (attrib.AttributionPatching, attrib.RelP):
        values = attrib.explain(model, PAIR, method(sites=names), ANSWER).values
        assert values.isfinite().all() and (values.abs().amax((0, 2)) > 0).float().mean() > 0.75
    assert {"attn_out", "mlp_out", "head", "q", "k", "v", "neuron", "resid_mid"} <= {
        site.kind for site in all_sites(structure_of(model))
    }


@pytest.mark.parametrize("family", ["xlnet", "diffllama", "convbert", "jetmoe", "gemma4_unified_text", "prophetnet"])
def test_estimates_are_the_slopes_of_small_patches(family):
    model, steps = wrapped(family), 4000
    names = tuple(site.name for site in all_sites(structure_of(model)) if site.kind != "embed")
    weight = model.module.get_input_embeddings().weight
    kept = weight[CORRUPTED[1]].detach().clone()
    with torch.no_grad():
        weight[CORRUPTED[1]] = weight[CLEAN[1]] + (kept - weight[CLEAN[1]]) / steps
    true = attrib.explain(model, PAIR, attrib.ActivationPatching(sites=names), ANSWER).values * steps
    estimate = attrib.explain(model, PAIR, attrib.AttributionPatching(sites=names), ANSWER).values * steps
    with torch.no_grad():
        weight[CORRUPTED[1]] = kept
    assert float((true - estimate).abs().max()) < 1e-2 * float(true.abs().max())
