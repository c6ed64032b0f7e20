"""Pairs that cannot be compared are refused with the reason; results answer what is asked of them."""

from __future__ import annotations

import math

import pytest
import torch
from patching_oracles import network, tokenizer, wrapped
from transformers import BertConfig, BertForSequenceClassification

import attrib
from attrib.patching.pair import aligned

ANSWERS = attrib.LogitDiff("w12", "w25")
ROWS = 6


def model():
    return wrapped(network("gpt2"))


def several(n: int = ROWS) -> attrib.Pair:
    generator = torch.Generator().manual_seed(4)
    clean = torch.randint(4, 40, (n, 5), generator=generator)
    corrupted = clean.clone()
    corrupted[:, 1] = (clean[:, 1] - 4 + 7) % 36 + 4
    return attrib.pair(clean, corrupted)


def explained(pair: attrib.Pair, method: str = "relp", target=ANSWERS) -> attrib.Attribution:
    return attrib.explain(model(), pair, method, target)


def test_prompts_of_different_length_are_shown_under_each_other():
    pair = attrib.pair("w4 w5 w6 w7", "w4 w5 w9 w8 w6 w7")
    with pytest.raises(attrib.PromptPairError, match="4 and 6 tokens") as error:
        explained(pair)
    lines = str(error.value).splitlines()
    assert lines[1].split() == ["clean", "w4", "w5", "w6", "w7"]
    assert lines[2].split() == ["corrupted", "w4", "w5", "w9", "w8", "w6", "w7"]
    assert lines[1].index("w6") == lines[2].index("w6") and lines[3].split() == ["^^", "^^"]
    assert "attrib.tasks.padded" in lines[0]


def test_what_is_shown_is_bounded_and_printable():
    shown = aligned(["a\x1b[31m", "b\n"] * 500, ["c"] * 1000)
    assert len(shown) < 2000 and "\x1b" not in shown and shown.count("\n") == 2


def test_padding_a_name_makes_the_prompts_comparable():
    pair = attrib.tasks.padded(model(), "w4 w5 w6 w7", "w4 w9 w8 w6 w7", filler="w30")
    assert pair.clean == ((4, 30, 5, 6, 7),) and pair.corrupted == ((4, 9, 8, 6, 7),)
    assert explained(pair).values.shape == (1, 6, 5)
    with pytest.raises(attrib.TargetError, match="not one token"):
        attrib.tasks.padded(model(), "w4 w5", "w4", filler="w30 w31")


@pytest.mark.parametrize(
    ("clean", "corrupted", "said"),
    [
        (["w4", "w5"], ["w6"], "2 clean prompts and 1"),
        ([], [], "empty"),
        (3.5, "w4", "float"),
        ([["w4"]], ["w4"], "list"),
        ([[4, 5]], [[4, "x"]], "list"),
    ],
)
def test_lists_that_are_no_pairs(clean, corrupted, said):
    with pytest.raises(attrib.PromptPairError, match=said):
        attrib.pair(clean, corrupted)


def test_a_bad_prompt_says_which_side_it_is_on():
    with pytest.raises(attrib.InputError, match="of the corrupted prompts, input 0 is an empty text"):
        explained(attrib.pair("w4", ""))


def test_answers_of_several_tokens_and_equal_answers():
    pair = attrib.pair("w4 w5", "w6 w5")
    with pytest.raises(attrib.TargetError, match="not one token"):
        explained(pair, target=attrib.LogitDiff("w4 w5", "w6"))
    with pytest.raises(attrib.TargetError, match="both 'w7'"):
        explained(pair, target=attrib.LogitDiff("w7", "w7"))


def test_masks_at_different_places():
    masked = wrapped(network("bert"))
    with pytest.raises(attrib.PromptPairError, match="mask token at another place"):
        attrib.explain(masked, attrib.pair("w4 [MASK] w5", "w4 w5 [MASK]"), "relp", ANSWERS)


def test_a_model_without_a_language_head():
    config = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, vocab_size=40)
    classifier = attrib.wrap(BertForSequenceClassification(config).eval(), tokenizer=tokenizer())
    with pytest.raises(attrib.NotApplicable, match="no language-model head"):
        attrib.tasks.ioi(classifier)
    with pytest.raises(attrib.TargetError, match="no class 'w12'"):
        attrib.explain(classifier, attrib.pair("w4 w5", "w6 w5"), "relp", ANSWERS)
    assert attrib.explain(classifier, attrib.pair("w4 w5", "w6 w5"), "relp", attrib.LogitDiff(0, 1)).kind == "sites"
    with pytest.raises(attrib.UnsupportedModel, match="no head"):
        attrib.wrap(classifier.module.bert, tokenizer=tokenizer())


def test_top_is_sorted_and_names_tokens():
    result = explained(several())
    best = result.top(4, index=2)
    assert [abs(e.value) for e in best] == sorted((result.values[2].abs().flatten().tolist()), reverse=True)[:4]
    site, position = result.sites.index(best[0].site), best[0].position
    assert best[0].value == float(result.values[2, site, position])
    assert (best[0].clean, best[0].corrupted) == (result.token_texts[2][position], result.corrupted_texts[2][position])
    assert len(result.top(10**6)) == result.values[0].numel()
    for k, index in ((0, 0), (1, ROWS), (1, -1)):
        with pytest.raises(attrib.InputError):
            result.top(k, index)


def test_correlation_is_pearsons_by_kind():
    ours, theirs = explained(several()), explained(several(), "attribution_patching")
    found = ours.correlation(theirs)
    assert list(found) == ["resid_post", "attn_out", "mlp_out"]
    for i, kind in enumerate(found):
        a, b = (r.values[:, 2 * i : 2 * i + 2].flatten() for r in (ours, theirs))
        assert found[kind] == pytest.approx(float(torch.corrcoef(torch.stack([a, b]))[0, 1]), abs=1e-9)
    assert ours.correlation(ours, kind="attn_out") == {"attn_out": pytest.approx(1.0)}
    with pytest.raises(attrib.UnknownName, match="resid_post"):
        ours.correlation(theirs, kind="resid")
    with pytest.raises(attrib.InputError, match="different pairs"):
        ours.correlation(explained(several(3)))
    other = attrib.explain(model(), several(), attrib.RelP(sites="embed"), ANSWERS)
    with pytest.raises(attrib.InputError, match="no site in common"):
        ours.correlation(other)
    same = explained(attrib.pair([[4, 5, 6]], [[4, 5, 6]]))
    assert all(math.isnan(r) for r in same.correlation(same).values())


def test_means_and_their_intervals():
    result = explained(several(40))
    found = result.mean()
    torch.testing.assert_close(found.values, result.values.mean(0))
    assert found.pairs == 40 and found.sites == result.sites
    assert ((found.low <= found.values) & (found.values <= found.high)).all()
    wide = result.mean(0.99)
    assert ((wide.low <= found.low) & (found.high <= wide.high)).all()
    # for 40 pairs the bootstrap's width is near the normal one
    error = result.values.std(0) / 40**0.5
    ratio = ((found.high - found.low) / (2 * 1.96 * error))[error > 0]
    assert ratio.min() > 0.7 and ratio.max() < 1.2
    clean = result.parts["metric_clean"]
    assert found.metric["clean"][0] == pytest.approx(float(clean.mean()))
    with pytest.raises(attrib.InputError, match="no spread"):
        explained(several(1)).mean()
    with pytest.raises(attrib.InputError, match=r"\[2, 3\] tokens"):
        explained(attrib.pair([[4, 5, 6], [7, 8]], [[4, 9, 6], [7, 9]])).mean()


def test_a_metric_that_does_not_change_has_no_shares():
    result = explained(attrib.pair([[4, 5, 6], [7, 8, 9]], [[4, 5, 6], [7, 5, 9]]))
    assert any("same in both runs" in note for note in result.notes)
    with pytest.raises(attrib.PromptPairError, match=r"pair 0 is .* in both runs"):
        result.normalised()


def test_methods_of_sites_refuse_other_results():
    saliency = attrib.explain(model(), "w4 w5", "saliency")
    for ask in (saliency.top, saliency.mean, saliency.normalised, lambda: saliency.correlation(saliency)):
        with pytest.raises(attrib.InputError, match="has no sites"):
            ask()
    with pytest.raises(attrib.InputError, match="plotted without rows"):
        saliency.plot(rows="layer")


def test_pictures_of_every_arrangement():
    sites = ("embed", "resid_post.*", "head.*.*", "head.*.*.q", "neuron.0.*")
    result = attrib.explain(model(), attrib.pair("w4 w5 w6", "w4 w9 w6"), attrib.RelP(sites=sites), ANSWERS)
    from attrib.render.sites import panels

    by_title = {panel.title: panel for panel in panels(result, 0)}
    heads = by_title["heads (z)"]
    assert heads.rows == ("0", "1") and heads.columns == ("w4", "w5/w9", "w6")
    own = [i for i, name in enumerate(result.sites) if name.startswith("head.1.") and name.count(".") == 2]
    assert heads.values[1] == pytest.approx(result.values[0, own].sum(0).numpy())
    grid = {panel.title: panel for panel in panels(result, 0, columns="head")}["heads (z)"]
    assert grid.values.shape == (2, 4)
    assert grid.values[1, 2] == pytest.approx(float(result.values[0, own[2]].sum()))
    assert len({panel.title: panel for panel in panels(result, rows="site", columns="sum")}["queries"].rows) == 8
    assert len(result.plot(rows="site", columns="sum").axes) == 2 * len(by_title)
    with pytest.raises(attrib.UnknownName, match="token"):
        result.plot(columns="tokens")


@pytest.mark.parametrize("text", ["w4 $\\frac{1}{2}$ w6", "<script>alert(1)</script>"])
def test_hostile_tokens_are_shown_as_text(text):
    result = explained(attrib.pair([[4, 5, 6]], [[4, 9, 6]]))
    hostile = attrib.Attribution(**{**vars(result), "token_texts": ((text, "w5", "w6"),), "sites": result.sites})
    html = hostile._repr_html_()
    assert "<script" not in html and "data:image/png;base64" in html
