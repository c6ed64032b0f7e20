"""Models whose tensors lie otherwise: tokens or channels in front, more positions than there are tokens."""

from __future__ import annotations

import pytest
import text_families
import torch
import transformers as tr
from transformers.modeling_outputs import CausalLMOutput

import attrib
from attrib.patching.probing import structure_of
from attrib.patching.sites import all_sites

CLEAN, CORRUPTED = [[5, 9, 17, 23, 8], [6, 9, 18, 23, 4]], [[5, 9, 21, 23, 8], [6, 11, 18, 23, 24]]
ANSWER = attrib.LogitDiff(12, 25, position=4)


def xlnet():
    torch.manual_seed(0)
    sizes = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "initializer_range": 0.4}
    module = tr.XLNetLMHeadModel(tr.XLNetConfig(vocab_size=text_families.ROWS, **sizes))
    return module.double().eval()


@pytest.mark.parametrize("method", [attrib.RelP, attrib.AttributionPatching, attrib.ActivationPatching])
def test_pairs_of_a_model_with_tokens_in_front_are_not_mixed(method):
    model = attrib.wrap(xlnet(), tokenizer=text_families.byte_level())
    asked = method(sites=("resid_post.*", "mlp_out.*"))
    together = attrib.explain(model, attrib.pair(CLEAN, CORRUPTED), asked, ANSWER).values
    alone = [
        attrib.explain(model, attrib.pair(*each), asked, ANSWER).values for each in zip(CLEAN, CORRUPTED, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)
    assert together.abs().amax((1, 2)).min() > 1e-3


def test_patches_of_a_model_with_tokens_in_front_are_those_of_plain_forwards():
    module = xlnet()
    model = attrib.wrap(module, tokenizer=text_families.byte_level())
    asked = attrib.ActivationPatching(sites=("resid_post.0",))
    found = attrib.explain(model, attrib.pair(CLEAN[0], CORRUPTED[0]), asked, ANSWER).values[0, 0]
    block, kept = module.transformer.layer[0], []

    def metric(tokens, hook=None):
        handle = block.register_forward_hook(hook) if hook else None
        with torch.no_grad():
            logits = module(torch.tensor([tokens])).logits[0, 4]
        if handle:
            handle.remove()
        return float(logits[12] - logits[25])

    metric(CLEAN[0], lambda _, __, output: kept.append(output[0].clone()))
    for position in range(5):

        def patch(_, __, output, position=position):
            output[0][position] = kept[0][position]

        expected = metric(CORRUPTED[0], patch) - metric(CORRUPTED[0])
        assert float(found[position]) == pytest.approx(expected, abs=1e-9)


def test_the_way_between_two_streams_with_tokens_in_front_adds_up_to_the_change_of_the_metric():
    model = attrib.wrap(xlnet(), tokenizer=text_families.byte_level())
    asked = attrib.AttributionPatching(sites=("resid_post.0",), integrated=100)
    found = attrib.explain(model, attrib.pair(CLEAN[0], CORRUPTED[0]), asked, ANSWER)
    assert float(found.values.sum()) == pytest.approx(float(found.score), rel=1e-3)


def test_a_masked_pair_needs_no_mask_where_the_target_says_what_to_read():
    model = attrib.wrap(xlnet(), tokenizer=text_families.byte_level())
    with pytest.raises(attrib.InputError, match="say which position"):
        attrib.explain(model, attrib.pair(CLEAN, CORRUPTED), "relp", attrib.LogitDiff(12, 25))
    found = attrib.explain(model, attrib.pair(CLEAN, CORRUPTED), "relp", attrib.LogitDiff(12, 25, position=1))
    assert found.values.abs().amax((1, 2)).min() > 0


SIZES = text_families.SMALL | {"max_position_embeddings": 64, "vocab_size": text_families.ROWS, "pad_token_id": 0}
KINDS = {"resid_post": 2, "resid_mid": 2, "attn_out": 2, "mlp_out": 2, "neuron": 2, "head": 8, "q": 8, "k": 8, "v": 8}
BATCHED, HEADED = (lambda t, p: t[0, p]), (lambda t, p: t[0, 0, p])
TOKENS, CHANNELS = (lambda t, p: t[p, 0]), (lambda t, p: t[0, :, p])
STACKED = {"mobilebert": {"mlp_out": 8}, "xmod": {"mlp_out": 4}}  # in a block, one behind the other
STACKED["longcat"] = {"mlp_out": 6, "attn_out": 4} | dict.fromkeys(("head", "q", "k", "v"), 16)
LONG, SQUEEZED = "longformer.encoder.layer", "transformer.encoder.layers"
MOBILE, XMOD, LONGCAT = "mobilebert.encoder.layer", "roberta.encoder.layer", "model.layers"
# family → site → (module, what of it, its row at a position, columns)
BY_HAND = {
    "longformer": {  # fills up to a multiple of its window, and projects with tokens in front
        "resid_post.0": (f"{LONG}.0", "output", BATCHED, slice(None)),
        "head.1.2": (f"{LONG}.1.attention.output.dense", "input", BATCHED, slice(16, 24)),
        "head.0.3.q": (f"{LONG}.0.attention.self.query", "output", TOKENS, slice(24, 32)),
        "head.1.1.v": (f"{LONG}.1.attention.self.value", "output", TOKENS, slice(8, 16)),
    },
    "squeezebert": {  # channels in front of tokens, projections that are convolutions, layers that are no modules
        "resid_pre.0": ("transformer.embeddings", "output", BATCHED, slice(None)),
        "resid_mid.1": (f"{SQUEEZED}.1.post_attention", "output", CHANNELS, slice(None)),
        "head.1.2": (f"{SQUEEZED}.1.post_attention.conv1d", "input", CHANNELS, slice(16, 24)),
        "head.0.3.k": (f"{SQUEEZED}.0.attention.key", "output", CHANNELS, slice(24, 32)),
        "neuron.0": (f"{SQUEEZED}.0.output.conv1d", "input", CHANNELS, slice(None)),
    },
    "mobilebert": {  # attention and four MLPs in a bottleneck
        "resid_post.0": (f"{MOBILE}.0", "output", BATCHED, slice(None)),
        "attn_out.1": (f"{MOBILE}.1.attention.output.dense", "output", BATCHED, slice(None)),
        "resid_mid.0": (f"{MOBILE}.0.attention.output", "output", BATCHED, slice(None)),
        "mlp_out.1": (f"{MOBILE}.1.ffn.0.output.dense", "output", BATCHED, slice(None)),
        "mlp_out.0.2": (f"{MOBILE}.0.ffn.2.output.dense", "output", BATCHED, slice(None)),
        "mlp_out.0.3": (f"{MOBILE}.0.output.dense", "output", BATCHED, slice(None)),
        "neuron.0.7": (f"{MOBILE}.0.ffn.0.output.dense", "input", BATCHED, slice(7, 8)),
        "head.1.2": (f"{MOBILE}.1.attention.output.dense", "input", BATCHED, slice(8, 12)),
    },
    "xmod": {  # an adapter behind each MLP
        "attn_out.1": (f"{XMOD}.1.attention.output.dense", "output", BATCHED, slice(None)),
        "mlp_out.0": (f"{XMOD}.0.output.dense", "output", BATCHED, slice(None)),
        "mlp_out.0.1": (f"{XMOD}.0.output.adapter_modules.en_XX", "output", BATCHED, slice(None)),
        "neuron.1": (f"{XMOD}.1.output.dense", "input", BATCHED, slice(None)),
    },
    "longcat": {  # attention, MLP, attention, MLP, and experts that read between the first two
        "attn_out.0": (f"{LONGCAT}.0.self_attn.0.o_proj", "output", BATCHED, slice(None)),
        "attn_out.1.1": (f"{LONGCAT}.1.self_attn.1.o_proj", "output", BATCHED, slice(None)),
        "mlp_out.0": (f"{LONGCAT}.0.mlps.0", "output", BATCHED, slice(None)),
        "mlp_out.0.1": (f"{LONGCAT}.0.mlps.1", "output", BATCHED, slice(None)),
        "mlp_out.1.2": (f"{LONGCAT}.1.mlp", "output", BATCHED, slice(None)),
        "neuron.1": (f"{LONGCAT}.1.mlps.0.down_proj", "input", BATCHED, slice(None)),
        "head.1.2": (f"{LONGCAT}.1.self_attn.0.o_proj", "input", BATCHED, slice(16, 24)),
        "head.0.5": (f"{LONGCAT}.0.self_attn.1.o_proj", "input", BATCHED, slice(8, 16)),
        "head.1.6.q": (f"{LONGCAT}.1.self_attn.1.q_b_proj", "output", BATCHED, slice(16, 24)),
        "head.0.5.k": (f"{LONGCAT}.0.self_attn.1.kv_b_proj", "output", HEADED, slice(12, 16)),
        "head.0.7.v": (f"{LONGCAT}.0.self_attn.1.kv_b_proj", "output", HEADED, slice(40, 48)),
    },
}


def otherwise(family: str):
    torch.manual_seed(0)
    if family == "longformer":
        module = tr.LongformerForMaskedLM(tr.LongformerConfig(attention_window=[4, 4], **SIZES))
    elif family == "mobilebert":
        narrow = {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16}
        module = tr.MobileBertForMaskedLM(tr.MobileBertConfig(**SIZES | narrow))
    elif family == "xmod":
        module = tr.XmodForMaskedLM(tr.XmodConfig(languages=["en_XX"], default_language="en_XX", **SIZES))
    elif family == "longcat":
        ranks = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 8}
        experts = {"n_routed_experts": 4, "zero_expert_num": 2, "moe_topk": 2, "expert_ffn_hidden_size": 16}
        sizes = SIZES | ranks | experts | {"ffn_hidden_size": 48, "head_dim": 4, "num_hidden_layers": 4}
        module = tr.LongcatFlashForCausalLM(tr.LongcatFlashConfig(**sizes))
    else:
        groups = {f"{part}_groups": 1 for part in ("q", "k", "v", "post_attention", "intermediate", "output")}
        module = tr.SqueezeBertForMaskedLM(tr.SqueezeBertConfig(embedding_size=32, **groups, **SIZES))
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module.double().eval()


def metric_with(module, tokens, where, change):
    """The metric while change(position, its row) is called at every position of the site, to change it in place."""
    path, reads, rows, part = where

    def hook(_, given, output=None):
        tensor = given[0] if reads == "input" else output[0] if isinstance(output, tuple) else output
        for position in range(len(tokens)):
            change(position, rows(tensor, position)[part])

    spot = module.get_submodule(path)
    handle = spot.register_forward_pre_hook(hook) if reads == "input" else spot.register_forward_hook(hook)
    with torch.no_grad():
        logits = module(input_ids=torch.tensor([tokens])).logits[0, 4]
    handle.remove()
    return float(logits[12] - logits[25])


@pytest.mark.parametrize("family", BY_HAND)
def test_every_kind_of_site_is_found_and_patched_as_by_hand(family):
    module = otherwise(family)
    model = attrib.wrap(module, tokenizer=text_families.byte_level())
    sites = all_sites(structure_of(model))
    assert {kind: sum(site.kind == kind for site in sites) for kind in KINDS} == {
        **KINDS,
        **STACKED.get(family, {}),
    }
    names = tuple(BY_HAND[family])
    pair = attrib.pair(CLEAN[0], CORRUPTED[0])
    result = attrib.explain(model, pair, attrib.ActivationPatching(sites=names), ANSWER)
    assert any("whole forward" in note for note in result.notes) == (family == "squeezebert")
    found = result.values[0]
    for number, where in enumerate(BY_HAND[family].values()):
        kept = {}
        base = metric_with(module, CORRUPTED[0], where, lambda position, row: None)
        metric_with(module, CLEAN[0], where, lambda p, row, kept=kept: kept.update({p: row.clone()}))
        for position in range(5):

            def patch(p, row, position=position, kept=kept):
                if p == position:
                    row.copy_(kept[p])

            expected = metric_with(module, CORRUPTED[0], where, patch) - base
            assert float(found[number, position]) == pytest.approx(expected, abs=1e-9)
    assert found.abs().amax(1).min() > 1e-4


@pytest.mark.parametrize("family", BY_HAND)
def test_estimates_are_the_slopes_of_small_patches(family):
    """Attribution patching along a step so small that it is exact, at every site; RelP runs on all of them."""
    model = attrib.wrap(otherwise(family), tokenizer=text_families.byte_level())
    names = tuple(site.name for site in all_sites(structure_of(model)) if site.kind != "embed")
    pair = attrib.pair([*CLEAN[0], 7], [*CORRUPTED[0], 7])  # of 5 tokens, Longformer's own gradients are NaN in float64
    steps = 4000
    with torch.no_grad():
        weight = model.module.get_input_embeddings().weight
        weight[CORRUPTED[0][2]] = weight[CLEAN[0][2]] + (weight[CORRUPTED[0][2]] - weight[CLEAN[0][2]]) / steps
    true = attrib.explain(model, pair, attrib.ActivationPatching(sites=names), ANSWER).values * steps
    estimate = attrib.explain(model, pair, attrib.AttributionPatching(sites=names), ANSWER).values * steps
    assert float((true - estimate).abs().max()) < 1e-2 * float(true.abs().max())
    assert attrib.explain(model, pair, attrib.RelP(sites=names), ANSWER).values.isfinite().all()


def test_a_model_that_wants_a_mask_for_every_row_is_replayed_and_has_circuits():
    torch.manual_seed(0)
    sizes = {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": 64}
    module = tr.XGLMForCausalLM(tr.XGLMConfig(vocab_size=text_families.ROWS, pad_token_id=0, init_std=0.3, **sizes))
    model = attrib.wrap(module.eval(), tokenizer=text_families.byte_level())
    pair = attrib.pair(CLEAN[0], CORRUPTED[0])
    true = attrib.explain(model, pair, "activation_patching", ANSWER)
    assert not any("whole forward" in note for note in true.notes) and float(true.values.abs().max()) > 1e-3
    edges = attrib.explain(model, pair, attrib.RelP(edges=True), ANSWER)
    found = attrib.circuit(model, pair, edges, 1.0, sizes=(0,))
    assert [found.empty, found.full] == pytest.approx(
        [float(edges.parts[f"metric_{r}"][0]) for r in ("corrupted", "clean")], abs=1e-5
    )


class Gathered(tr.GPT2LMHeadModel):
    """The head reads the sum of what all blocks put out."""

    def forward(self, inputs_embeds=None, input_ids=None, **_):
        x = self.transformer.wte(input_ids) if inputs_embeds is None else inputs_embeds
        streams = [x + self.transformer.wpe.weight[: x.shape[1]]]
        for block in self.transformer.h:
            streams.append(block(streams[-1]))
        return CausalLMOutput(logits=self.lm_head(self.transformer.ln_f(sum(streams[1:]))))


def test_a_stream_that_is_read_past_the_next_block_too():
    torch.manual_seed(0)
    config = tr.GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=64, vocab_size=640, bos_token_id=1)
    module = Gathered(config).double().eval()
    model = attrib.wrap(module, tokenizer=text_families.byte_level())
    sites, pair = ("resid_pre.1", "resid_post.0"), attrib.pair(CLEAN[0], CORRUPTED[0])
    true, estimate = (
        attrib.explain(model, pair, method(sites=sites), ANSWER).values[0]
        for method in (attrib.ActivationPatching, attrib.AttributionPatching)
    )
    where, kept = ("transformer.h.0", "output", BATCHED, slice(None)), {}
    base = metric_with(module, CORRUPTED[0], where, lambda position, row: None)
    metric_with(module, CLEAN[0], where, lambda p, row: kept.update({p: row.clone()}))
    patched = metric_with(module, CORRUPTED[0], where, lambda p, row: row.copy_(kept[p]) if p == 4 else None)
    assert abs(patched - base) > 1e-3
    for found in (true, estimate):
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)
    assert float(true[0, 4]) == pytest.approx(patched - base, abs=1e-9)


class Repeated(Gathered):
    """The head reads what the first block was given once more, from a tensor that was made before."""

    def forward(self, inputs_embeds=None, input_ids=None, **_):
        x = self.transformer.wte(input_ids) if inputs_embeds is None else inputs_embeds
        x = x + self.transformer.wpe.weight[: x.shape[1]]
        before = x * 1.5
        for block in self.transformer.h:
            x = block(x)
        return CausalLMOutput(logits=self.lm_head(self.transformer.ln_f(x + before)))


def test_a_stream_that_others_have_read_before_is_that_of_the_block_alone():
    torch.manual_seed(0)
    config = tr.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=640, bos_token_id=1)
    module, steps = Repeated(config).double().eval(), 4000
    model = attrib.wrap(module, tokenizer=text_families.byte_level())
    with torch.no_grad():
        weight = module.get_input_embeddings().weight
        weight[CORRUPTED[0][2]] = weight[CLEAN[0][2]] + (weight[CORRUPTED[0][2]] - weight[CLEAN[0][2]]) / steps
        weight[24] = weight[CLEAN[0][4]] - torch.linspace(-1, 1, 32) / steps  # where the model is read
    pair = attrib.pair(CLEAN[0], [*CORRUPTED[0][:4], 24])
    true, estimate = (
        attrib.explain(model, pair, method(sites=("resid_pre.0", "embed")), ANSWER).values[0] * steps
        for method in (attrib.ActivationPatching, attrib.AttributionPatching)
    )
    torch.testing.assert_close(true, estimate, rtol=0.01, atol=2e-3)
    assert float((true[0, 4] - true[1, 4]).abs()) > 0.05
    with pytest.raises(attrib.UnsupportedModel, match="the head reads more of the layers before it"):
        attrib.explain(model, pair, attrib.RelP(edges=True), ANSWER)
