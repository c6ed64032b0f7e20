"""Models whose stream lies otherwise: tokens in front of the batch."""

from __future__ import annotations

import pytest
import text_families
import torch
import transformers as tr

import attrib

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
