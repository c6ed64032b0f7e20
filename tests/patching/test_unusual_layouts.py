"""Models whose tensors lie otherwise: tokens or channels in front, more positions than there are tokens."""

from __future__ import annotations

import pytest
import text_families
import torch
import transformers as tr

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


def test_a_masked_pair_needs_no_mask_where_the_target_says_what_to_read():
    model = attrib.wrap(xlnet(), tokenizer=text_families.byte_level())
    with pytest.raises(attrib.InputError, match="say which position"):
        attrib.explain(model, attrib.pair(CLEAN, CORRUPTED), "relp", attrib.LogitDiff(12, 25))
    found = attrib.explain(model, attrib.pair(CLEAN, CORRUPTED), "relp", attrib.LogitDiff(12, 25, position=1))
    assert found.values.abs().amax((1, 2)).min() > 0


SIZES = text_families.SMALL | {"max_position_embeddings": 64, "vocab_size": text_families.ROWS, "pad_token_id": 0}
KINDS = {"resid_post": 2, "resid_mid": 2, "attn_out": 2, "mlp_out": 2, "neuron": 2, "head": 8, "q": 8, "k": 8, "v": 8}
BATCHED, TOKENS, CHANNELS = (lambda t, p: t[0, p]), (lambda t, p: t[p, 0]), (lambda t, p: t[0, :, p])
LONG, SQUEEZED = "longformer.encoder.layer", "transformer.encoder.layers"
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
}


def otherwise(family: str):
    torch.manual_seed(0)
    if family == "longformer":
        module = tr.LongformerForMaskedLM(tr.LongformerConfig(attention_window=[4, 4], **SIZES))
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
    assert {kind: sum(site.kind == kind for site in sites) for kind in KINDS} == KINDS
    names = tuple(BY_HAND[family])
    pair = attrib.pair(CLEAN[0], CORRUPTED[0])
    found = attrib.explain(model, pair, attrib.ActivationPatching(sites=names), ANSWER).values[0]
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
