"""Layers that share one module (ALBERT), that are no module (XLM), that mix positions without attention (Mamba, Jamba),
and heads that are none: against plain forwards with hooks written here."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import text_families
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

import attrib
from attrib.patching.probing import structure_of
from attrib.patching.sites import all_sites, select
from tests.patching.short_pair import ANSWER, CLEAN, CORRUPTED, LAST, PAIR

SMALL = text_families.SMALL | {"max_position_embeddings": 64}
GROUPED = text_families.LLAMA
EMBEDDED = {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MASKED = {
    "albert": SMALL | {"embedding_size": 16, "num_hidden_layers": 3},
    "xlm": EMBEDDED,
    "convbert": SMALL | {"embedding_size": 32},
    "mobilebert": SMALL | {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16},
    "electra": SMALL | {"embedding_size": 16},
    "esm": SMALL | {"position_embedding_type": "rotary"},
    "squeezebert": SMALL
    | {"embedding_size": 32}
    | {f"{part}_groups": 1 for part in ("q", "k", "v", "post_attention", "intermediate", "output")},
    "deberta-v2": SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 16},
}
CAUSAL = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "use_cache": False},
    "jamba": GROUPED
    | {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1, "mamba_d_state": 4}
    | {"use_mamba_kernels": False},
    "qwen3_next": GROUPED
    | LINEAR
    | {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"], "num_experts": 4}
    | {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "bitnet": GROUPED,
    "doge": GROUPED,
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    "gpt_neox_japanese": SMALL,
    "falcon_h1": GROUPED
    | {"mamba_d_ssm": 64, "mamba_d_state": 4, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2}
    | {"mamba_chunk_size": 4},
    "zamba2": SMALL  # its shared block reads the embeddings again
    | {"layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 4, "mamba_ngroups": 2, "n_mamba_heads": 8}
    | {"mamba_headdim": 8, "num_mem_blocks": 1, "chunk_size": 4, "num_key_value_heads": 4, "use_mamba_kernels": False},
    "minimax": GROUPED
    | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}
    | {"layer_types": ["linear_attention", "full_attention"], "block_size": 4},
    "ctrl": {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 48, "n_positions": 64},
}
GROUP = "albert.encoder.albert_layer_groups.0.albert_layers.0"
# family → site → (module, what of it, which of its calls, columns)
WHERE = {
    "albert": {
        "resid_post.1": (GROUP, "output", 1, slice(None)),
        "mlp_out.0": (f"{GROUP}.ffn_output", "output", 0, slice(None)),
        "head.2.1": (f"{GROUP}.attention.dense", "input", 2, slice(8, 16)),
        "head.1.3.v": (f"{GROUP}.attention.value", "output", 1, slice(24, 32)),
    },
    "xlm": {
        "resid_pre.1": ("transformer.layer_norm2.0", "output", 0, slice(None)),
        "resid_mid.0": ("transformer.layer_norm1.0", "output", 0, slice(None)),
        "resid_post.1": ("transformer.layer_norm2.1", "output", 0, slice(None)),
        "attn_out.1": ("transformer.attentions.1", "output", 0, slice(None)),
        "head.0.3": ("transformer.attentions.0.out_lin", "input", 0, slice(24, 32)),
    },
    "mamba": {
        "mixer_out.0": ("backbone.layers.0.mixer", "output", 0, slice(None)),
        "resid_post.1": ("backbone.layers.1", "output", 0, slice(None)),
    },
    "jamba": {
        "mixer_out.0": ("model.layers.0.mamba", "output", 0, slice(None)),
        "head.1.2": ("model.layers.1.self_attn.o_proj", "input", 0, slice(16, 24)),
        "mlp_out.0": ("model.layers.0.feed_forward", "output", 0, slice(None)),
    },
    # its MLP reads the token before, too
    "rwkv": {
        "mixer_out.0": ("rwkv.blocks.0.attention", "output", 0, slice(None)),
        "mlp_out.1": ("rwkv.blocks.1.feed_forward", "output", 0, slice(None)),
        "neuron.1.9:30": ("rwkv.blocks.1.feed_forward.value", "input", 0, slice(9, 30)),
    },
    # heads in a bottleneck, in which attention and MLPs are
    "mobilebert": {
        "head.0.1": ("mobilebert.encoder.layer.0.attention.output.dense", "input", 0, slice(4, 8)),
        "head.1.3.k": ("mobilebert.encoder.layer.1.attention.self.key", "output", 0, slice(12, 16)),
    },
    # its query projection holds gates between the heads' queries
    "qwen3_next": {"head.1.1.q": ("model.layers.1.self_attn.q_proj", "output", 0, slice(16, 24))},
}


def wrapped(family: str):
    settings = (MASKED | CAUSAL)[family] | {"vocab_size": text_families.ROWS, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **settings, pad_token_id=0)
    config._experts_implementation = "eager"
    kind = AutoModelForMaskedLM if family in MASKED else AutoModelForCausalLM
    torch.manual_seed(2)
    module = kind.from_config(config).double().eval()
    return attrib.wrap(text_families.redrawn(module), tokenizer=text_families.byte_level())


def metric(module, tokens, where, change):
    """The metric while `change` is applied to the tensor at `where`, the other calls of its module left alone."""
    path, reads, call, _ = where
    calls = []

    def hook(_, given, output=None):
        calls.append(1)
        if len(calls) != call + 1:
            return None
        if reads == "input":
            return (change(given[0]), *given[1:])
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    spot = module.get_submodule(path)
    handle = spot.register_forward_pre_hook(hook) if reads == "input" else spot.register_forward_hook(hook)
    logits = module(torch.tensor([tokens])).logits[0, LAST]
    handle.remove()
    return (logits[12] - logits[25]).double()


@pytest.mark.parametrize("family", WHERE)
def test_patches_and_estimates_are_those_of_plain_forwards(family):
    # some compute in float32 whatever they are given
    model, sites = wrapped(family), tuple(WHERE[family])
    module = model.module
    true = attrib.explain(model, PAIR, attrib.ActivationPatching(sites=sites), ANSWER).values[0]
    estimate = attrib.explain(model, PAIR, attrib.AttributionPatching(sites=sites), ANSWER).values[0]
    for number, where in enumerate(WHERE[family].values()):
        kept, part = [], where[3]
        base = metric(module, CORRUPTED, where, lambda tensor: tensor).detach()
        metric(module, CLEAN, where, lambda tensor, kept=kept: kept.append(tensor.detach()) or tensor)
        step = torch.zeros(len(CLEAN), dtype=torch.float64, requires_grad=True)

        def move(tensor, size=step, clean=kept[0], part=part):
            difference = torch.zeros_like(tensor)
            difference[..., part] = (clean - tensor.detach())[..., part]
            return tensor + size[None, :, None] * difference

        (slopes,) = torch.autograd.grad(metric(module, CORRUPTED, where, move), step)
        torch.testing.assert_close(estimate[number], slopes, rtol=1e-3, atol=5e-5)
        for position in range(len(CLEAN)):
            size = torch.zeros(len(CLEAN), dtype=torch.float64)
            size[position] = 1
            moved = metric(module, CORRUPTED, where, lambda tensor, size=size: move(tensor, size)).detach()
            torch.testing.assert_close(true[number, position], moved - base, rtol=1e-3, atol=5e-5)
    assert true.abs().amax(1).min() > 5e-3


@pytest.mark.parametrize("family", WHERE)
def test_identical_prompts_give_zeros_and_every_site_can_be_asked_for(family):
    model = wrapped(family)
    names = tuple(site.name for site in all_sites(structure_of(model)))
    for method in (attrib.ActivationPatching, attrib.AttributionPatching, attrib.RelP):
        same = attrib.explain(model, attrib.pair([CLEAN], [CLEAN]), method(sites=names), ANSWER)
        assert same.sites == names and not same.values.any()


def test_the_usual_sites_are_those_that_the_model_has():
    assert attrib.explain(wrapped("mamba"), PAIR, "relp", ANSWER).sites == (
        "resid_post.0", "resid_post.1", "mixer_out.0", "mixer_out.1"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("family", "absent", "why"),
    [
        ("mamba", "attn_out", "no layer has attention"),
        ("mamba", "resid_mid", "nothing lies between"),
    ],
)
def test_what_is_no_attention_and_no_head_is_told(family, absent, why):
    structure = structure_of(wrapped(family))
    assert absent not in {site.kind for site in all_sites(structure)}
    with pytest.raises(attrib.UnsupportedModel, match=why):
        select(structure, f"{absent}.*.*" if absent == "head" else f"{absent}.*")


# family → receiver → what it alone reads, behind its norm: (module, call)
READ = {
    "albert": {"head.2.*.q": (f"{GROUP}.attention.query", 2), "mlp_in.1": (f"{GROUP}.ffn", 1)},
    "xlm": {"mlp_in.1": ("transformer.ffns.1", 0), "head.1.*.v": ("transformer.attentions.1.v_lin", 0)},
    "jamba": {"mixer_in.0": ("model.layers.0.mamba", 0), "head.1.*.k": ("model.layers.1.self_attn.k_proj", 0)},
    "rwkv": {"mixer_in.1": ("rwkv.blocks.1.attention", 0), "mlp_in.0": ("rwkv.blocks.0.feed_forward", 0)},
    "qwen3_next": {"attn_in.1": ("model.layers.1.self_attn", 0), "mixer_in.0": ("model.layers.0.linear_attn", 0)},
    "convbert": {"attn_in.1": ("convbert.encoder.layer.1.attention.self", 0)},
    "bitnet": {"head.1.*.q": ("model.layers.1.self_attn.q_proj", 0), "mlp_in.1": ("model.layers.1.mlp", 0)},
    "xlnet": {"mlp_in.0": ("transformer.layer.0.ff.layer_1", 0), "mlp_in.1": ("transformer.layer.1.ff.layer_1", 0)},
    "squeezebert": {
        "mlp_in.1": ("transformer.encoder.layers.1.intermediate", 0),
        "head.1.*.k": ("transformer.encoder.layers.1.attention.key", 0),
    },
    # a stream that is multiplied by a weight, or by a number, before the MLP joins it but not where that reads it
    "doge": {"mlp_in.1": ("model.layers.1.mlp", 0), "attn_in.1": ("model.layers.1.self_attn", 0)},
    "minimax": {"mlp_in.1": ("model.layers.1.mlp", 0), "mixer_in.0": ("model.layers.0.self_attn", 0)},
    # attention beside Mamba
    "falcon_h1": {"mixer_in.1": ("model.layers.1.mamba", 0), "head.1.*.k": ("model.layers.1.self_attn.k_proj", 0)},
    "gpt_neox_japanese": {"mlp_in.1": ("gpt_neox_japanese.layers.1.mlp", 0)},
}


def patched_input(module, tokens, path, call, other=None):
    """(the metric, what a module was given in that call); other: what it is given instead."""
    kept, calls = [], []

    def hook(_, args, kwargs):
        calls.append(1)
        if len(calls) != call + 1:
            return None
        given = args[0] if args else kwargs["hidden_states"]
        kept.append(given.detach())
        if other is None:
            return None
        return ((other, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": other})

    handle = module.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True)
    with torch.no_grad():
        logits = module(torch.tensor([tokens])).logits[0, LAST]
    handle.remove()
    return float(logits[12] - logits[25]), kept[0]


@pytest.mark.parametrize("family", READ)
def test_edges_add_up_to_what_an_input_does_and_all_of_them_to_the_model(family):
    """Scores into one input, over all senders: what the metric does when that module alone reads the other run's
    hidden states, prompts being so near that it is linear. With all edges a circuit is the model, with none the
    corrupted run."""
    model = wrapped(family)
    weight, step = model.module.get_input_embeddings().weight, 1e-4
    with torch.no_grad():
        weight[CORRUPTED[1]] = weight[CLEAN[1]] + step * (weight[CORRUPTED[1]] - weight[CLEAN[1]])
    result = attrib.explain(model, PAIR, attrib.AttributionPatching(edges=True), ANSWER)
    receivers, found = list(result.receivers), []
    for pattern, (path, call) in READ[family].items():
        own = [i for i, name in enumerate(receivers) if fnmatchcase(name, pattern)]
        clean = patched_input(model.module, CLEAN, path, call)[1]
        base = patched_input(model.module, CORRUPTED, path, call)[0]
        expected = (patched_input(model.module, CORRUPTED, path, call, clean)[0] - base) / step
        found.append(expected)
        assert float(result.values[0][:, own].nansum()) / step == pytest.approx(expected, rel=0.02, abs=2e-3)
    assert max(map(abs, found)) > 0.01
    whole = attrib.circuit(model, PAIR, result, 1.0, sizes=(0,))
    metrics = [float(result.parts[f"metric_{run}"][0]) for run in ("corrupted", "clean")]
    assert [whole.empty, whole.full] == pytest.approx(metrics, abs=1e-10)
    apart = any("no module of its own" in note or "in front" in note for note in whole.notes)
    assert apart == (family in ("albert", "xlm", "xlnet", "squeezebert")) and all(n in str(whole) for n in whole.notes)
    scores = {(edge.sender, edge.receiver): edge.value for edge in whole.edges}
    for cut in whole.cuts:  # without this one edge
        lost = (1 - cut.left) * (whole.full - whole.empty) / step
        assert lost == pytest.approx(scores[cut.sender, cut.receiver] / step, rel=0.02, abs=2e-3)


@pytest.mark.parametrize(("family", "why"), [("mobilebert", "several MLPs"), ("zamba2", "layer 1 reads more of")])
def test_edges_are_refused_by_what_is_in_the_way(family, why):
    with pytest.raises(attrib.UnsupportedModel, match=f"has no edges between components: .*{why}"):
        attrib.explain(wrapped(family), PAIR, attrib.RelP(edges=True), ANSWER)


@pytest.mark.parametrize("family", ["electra", "esm", "deberta-v2", "ctrl"])
def test_edges_where_something_stands_in_front_of_the_blocks_or_behind_the_head(family):
    """Projected embeddings, a bias behind the head, projected positions, embeddings multiplied in place."""
    model = wrapped(family)
    result = attrib.explain(model, PAIR, attrib.RelP(edges=True), ANSWER)
    found = attrib.circuit(model, PAIR, result, 1.0, sizes=(0,))
    metrics = [float(result.parts[f"metric_{run}"][0]) for run in ("corrupted", "clean")]
    assert [found.empty, found.full] == pytest.approx(metrics, abs=1e-5) and abs(metrics[0] - metrics[1]) > 0.01
