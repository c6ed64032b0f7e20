"""Layers that begin the stream anew, add what is the same for every prompt, or mix a stream's rows: against whole
forwards with hooks on the very modules."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import text_families
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, ReformerConfig, ReformerModelWithLMHead

import attrib
from attrib.patching.probing import structure_of
from attrib.patching.sites import all_sites, select

CLEAN, CORRUPTED, LAST = [5, 9, 17, 23, 3, 8], [5, 21, 17, 23, 3, 7], 5
PAIR, ANSWER = attrib.pair([CLEAN], [CORRUPTED]), attrib.LogitDiff(12, 25, position=LAST)
GROUPED, LAYERS, ENCODER = text_families.LLAMA | {"head_dim": 8}, "model.layers", "mra.encoder.layer"
SIZES = {
    "inkling2_text": GROUPED
    | {"num_hidden_layers": 4, "layer_types": ["hybrid_sliding", "hybrid"] * 2, "n_layers_per_attn_res_block": 2}
    | {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "sliding_window_size": 32}
    | {"d_rel": 4, "rel_extent": 16, "unpadded_vocab_size": text_families.ROWS, "moe_intermediate_size": 16}
    | {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "mra": text_families.SMALL | {"max_position_embeddings": 66},
    "deepseek_v4": GROUPED
    | {"num_key_value_heads": 1, "q_lora_rank": 8, "o_groups": 2, "o_lora_rank": 8, "partial_rotary_factor": 0.5}
    | {"layer_types": ["compressed_sparse_attention", "sliding_attention"], "sliding_window": 32, "hc_mult": 2}
    | {"index_n_heads": 2, "index_head_dim": 8, "index_topk": 4, "moe_intermediate_size": 16}
    | {"mlp_layer_types": ["moe"] * 2, "n_routed_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2},
}
# family → site → (module, which of its arguments, None: its output, a name: as `by_hand` calls it; the columns)
BY_HAND = {
    "inkling2_text": {  # layers 0 and 2 begin with what attention puts out, and read every stream before
        "resid_pre.0": (f"{LAYERS}.0", 0, ()),
        "resid_post.1": (f"{LAYERS}.1", None, ()),
        "resid_pre.2": (f"{LAYERS}.2", 0, ()),
        "attn_out.0": (f"{LAYERS}.0.post_attention_convolution", None, ()),
        "attn_out.1": (f"{LAYERS}.1.post_attention_convolution", None, ()),
        "resid_mid.0": (f"{LAYERS}.0.mlp_input", 1, ()),
        "resid_mid.1": (f"{LAYERS}.1.mlp_input", 1, ()),
        "resid_mid.2": (f"{LAYERS}.2.mlp_input", 1, ()),
        "mlp_out.2": (f"{LAYERS}.2.post_mlp_convolution", None, ()),
        "neuron.1": (f"{LAYERS}.1.mlp.experts", "units", ()),
        "head.2.1": (f"{LAYERS}.2.self_attn.o_proj", 0, (slice(8, 16),)),
        "head.2.3.q": (f"{LAYERS}.2.self_attn.q_proj", None, (slice(24, 32),)),
        "head.1.1.k": (f"{LAYERS}.1.self_attn.k_proj", None, (slice(8, 16),)),
        "head.2.0.v": (f"{LAYERS}.2.self_attn.v_proj", None, (slice(0, 8),)),
        "attn_out.3": (f"{LAYERS}.3.post_attention_convolution", None, ()),
        "head.3.2": (f"{LAYERS}.3.self_attn.o_proj", 0, (slice(16, 24),)),
        "head.3.1.v": (f"{LAYERS}.3.self_attn.v_proj", None, (slice(8, 16),)),
    },
    "mra": {
        "resid_pre.1": (f"{ENCODER}.1", 0, ()),
        "mlp_out.0": (f"{ENCODER}.0.output.dense", None, ()),
        "neuron.1.5:9": (f"{ENCODER}.1.output.dense", 0, (slice(5, 9),)),
    },
    "deepseek_v4": {  # two streams, mixed at each position; an output projection of low rank; windows beside tokens
        "resid_pre.1": (f"{LAYERS}.1", 0, ()),
        "resid_post.0": (f"{LAYERS}.0", None, ()),
        "attn_out.0": (f"{LAYERS}.0", "attn_out", ()),
        "resid_mid.0": (f"{LAYERS}.0", "resid_mid", ()),
        "resid_mid.1": (f"{LAYERS}.1", "resid_mid", ()),
        "mlp_out.1": (f"{LAYERS}.1", "mlp_out", ()),
        "neuron.0": (f"{LAYERS}.0.mlp.experts", "units", ()),
        "head.0.1": (f"{LAYERS}.0.self_attn.o_a_proj", 0, (0, slice(8, 16))),
        "head.1.2": (f"{LAYERS}.1.self_attn.o_a_proj", 0, (1, slice(0, 8))),
        "head.0.3.q": (f"{LAYERS}.0.self_attn.q_b_proj", None, (slice(24, 32),)),
        "head.0.0.k": (f"{LAYERS}.0.self_attn.kv_proj", None, ()),
        "head.1.0.v": (f"{LAYERS}.1.self_attn.kv_proj", None, ()),
    },
}


@pytest.fixture
def module(request, monkeypatch):
    """The family's model, which computes in float64 where its own code says float32."""
    family = request.param
    settings = {"vocab_size": text_families.ROWS, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **SIZES[family] | settings)
    config._experts_implementation = "eager"
    kind = AutoModelForMaskedLM if family == "mra" else AutoModelForCausalLM
    try:
        built = kind.from_config(config, attn_implementation="eager")
    except ValueError:  # has no choice
        built = kind.from_config(config)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "float32", torch.float64)
    return text_families.redrawn(built.double().eval())


def by_hand(layer, name, visit):
    """DeepSeek-V4's layer, which calls visit with the tensor of that name."""

    def spot(own, tensor):
        if own == name:
            visit(tensor)
        return tensor

    def joined(kind, streams, connection, norm, part, **more):
        post, mixing, given = connection(streams)
        made = part(norm(given), **more)
        made = made[0] if isinstance(made, tuple) else made
        added = spot(kind, torch.einsum("btn,btd->btnd", post, made))
        return added + torch.einsum("btjk,btjd->btkd", mixing, streams)

    def forward(streams, input_ids=None, **more):
        streams = joined("attn_out", streams, layer.attn_hc, layer.input_layernorm, layer.self_attn, **more)
        streams = spot("resid_mid", streams)
        return joined("mlp_out", streams, layer.ffn_hc, layer.post_attention_layernorm, layer.mlp, input_ids=input_ids)

    return forward


def experts_by_hand(experts, visit):
    """A mixture that computes every expert for every token; visit gets the units, of experts chosen alone."""

    def forward(hidden, chosen, weights):
        share = torch.zeros(len(hidden), experts.num_experts, dtype=hidden.dtype)
        share = share.scatter_add(1, chosen, weights.to(hidden.dtype))
        units = torch.einsum("td,ewd->tew", hidden, experts.gate_up_proj)
        units = experts._apply_gate(units) * (share != 0)[..., None]
        wide = units.flatten(1)
        visit(wide[None])
        units = wide.view_as(units) * (share != 0)[..., None]
        return torch.einsum("te,tew,edw->td", share, units, experts.down_proj)

    return forward


def metric_with(module, tokens, where, change):
    """The metric while change(rows of the site) may write into them."""
    path, argument, columns = where
    spot = module.get_submodule(path)

    def visit(tensor):
        change(tensor[0][(slice(None), *columns)])

    def hook(_, given, output=None):
        tensor = output if argument is None else given[argument]
        visit(tensor[0] if isinstance(tensor, tuple) else tensor)

    with ExitStack() as stack, torch.no_grad():
        if isinstance(argument, str):
            spot.forward = experts_by_hand(spot, visit) if argument == "units" else by_hand(spot, argument, visit)
            stack.callback(delattr, spot, "forward")
        else:
            watched = spot.register_forward_hook if argument is None else spot.register_forward_pre_hook
            stack.callback(watched(hook).remove)
        logits = module(input_ids=torch.tensor([tokens])).logits[0, LAST]
    return float(logits[12] - logits[25])


@pytest.mark.parametrize(("module", "family"), [(name, name) for name in BY_HAND], indirect=["module"])
def test_patches_are_those_of_whole_forwards(module, family):
    model = attrib.wrap(module, tokenizer=text_families.byte_level())
    found = attrib.explain(model, PAIR, attrib.ActivationPatching(sites=tuple(BY_HAND[family])), ANSWER).values[0]
    for values, where in zip(found, BY_HAND[family].values(), strict=True):
        kept = []
        base = metric_with(module, CORRUPTED, where, lambda rows: None)
        metric_with(module, CLEAN, where, lambda rows, kept=kept: kept.append(rows.clone()))
        for position in range(LAST + 1):

            def patch(rows, position=position, kept=kept):
                rows[position] = kept[0][position]

            expected = metric_with(module, CORRUPTED, where, patch) - base
            assert float(values[position]) == pytest.approx(expected, abs=1e-9)
    assert found.abs().amax(1).min() > 1e-3


@pytest.mark.parametrize(("module", "family"), [(name, name) for name in BY_HAND], indirect=["module"])
def test_estimates_are_the_slopes_of_small_patches(module, family):
    model, step = attrib.wrap(module, tokenizer=text_families.byte_level()), 1e-6
    found = attrib.explain(model, PAIR, attrib.AttributionPatching(sites=tuple(BY_HAND[family])), ANSWER).values[0]
    for values, where in zip(found, BY_HAND[family].values(), strict=True):
        kept = []
        metric_with(module, CLEAN, where, lambda rows, kept=kept: kept.append(rows.clone()))
        for position in (1, LAST):
            moved = []
            for size in (step, -step):

                def move(rows, position=position, kept=kept, size=size):
                    rows[position] += size * (kept[0][position] - rows[position])

                moved.append(metric_with(module, CORRUPTED, where, move))
            assert float(values[position]) == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=1e-6, rel=1e-5)


@pytest.mark.parametrize(
    ("module", "layers", "keys"), [("inkling2_text", 4, 2), ("deepseek_v4", 2, 1)], indirect=["module"]
)
def test_every_layer_has_every_kind_of_site(module, layers, keys):
    structure = structure_of(attrib.wrap(module, tokenizer=text_families.byte_level()))
    each = {"resid_mid": 1, "attn_out": 1, "mlp_out": 1, "neuron": 1, "head": 4, "q": 4, "k": keys, "v": keys}
    found = {kind: sum(site.kind == kind for site in all_sites(structure)) for kind in each}
    assert found == {kind: layers * count for kind, count in each.items()}
    assert structure.missing == ()


@pytest.mark.parametrize("module", ["mra"], indirect=True)
def test_attention_that_adds_the_same_for_every_prompt_is_none(module):  # without its kernel it puts out zeros
    structure = structure_of(attrib.wrap(module, tokenizer=text_families.byte_level()))
    with pytest.raises(attrib.UnsupportedModel, match=r"no layer has attention that acts: .* the same for"):
        select(structure, "attn_out.*")


def test_layers_whose_gradients_are_not_recorded_are_told():
    sizes = {"attention_head_size": 8, "feed_forward_size": 48, "attn_layers": ["local", "local"], "is_decoder": True}
    axial = {"axial_pos_shape": (8, 8), "axial_pos_embds_dim": (16, 16), "local_attn_chunk_length": 8, "hash_seed": 0}
    config = ReformerConfig(**text_families.SMALL | sizes | axial, vocab_size=text_families.ROWS)
    model = attrib.wrap(ReformerModelWithLMHead(config).eval(), tokenizer=text_families.byte_level())
    with pytest.raises(attrib.UnsupportedModel, match="where no gradients are recorded"):
        structure_of(model)
