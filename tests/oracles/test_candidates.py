"""Several targets of one input, and targets at any position: one forward for all gives what each alone gives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import attrib
from attrib.errors import InputError, NotApplicable, TargetError
from attrib.models.text import TextModel, wrap_text

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import text_families

TEXT, SHORT = "The film was not good at all.", "wonderful music"
NEAR = {"rtol": 1e-6, "atol": 1e-9}
SHARED = {
    "saliency": attrib.Saliency(),
    "input_x_gradient": attrib.InputXGradient(),
    "attn_lrp": attrib.LRP(),
    "cp_lrp": attrib.LRP(preset="cp_lrp"),
    "positions": attrib.LRP(positions=True),
}
NOT_SHARED = {"occlusion": attrib.Occlusion(), "integrated_gradients": attrib.IntegratedGradients(n_steps=3)}


def model(family: str, head: str = "next_token") -> TextModel:
    tokenizer = text_families.byte_level() if family in text_families.DECODERS else text_families.word_piece()
    return wrap_text(text_families.model(family, head).double(), tokenizer)


def same(found: attrib.Attribution, row: int, alone: attrib.Attribution) -> None:
    n = alone.values.shape[1]
    torch.testing.assert_close(found.values[row, :n], alone.values[0], **NEAR)
    assert (found.values[row, n:] == 0).all()
    torch.testing.assert_close(found.score[row], alone.score[0], **NEAR)
    for name, amounts in (alone.ledger or {}).items():
        torch.testing.assert_close(found.ledger[name][row], amounts[0], rtol=1e-6, atol=1e-6)
    for name, part in (alone.parts or {}).items():
        torch.testing.assert_close(found.parts[name][row][..., :n], part[0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", [*SHARED, *NOT_SHARED])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_candidates_are_what_each_is_alone(family: str, method: str) -> None:
    subject, how = model(family), (SHARED | NOT_SHARED)[method]
    found = attrib.explain(subject, [TEXT, SHORT], how, attrib.Candidates(5, 9, 11))
    assert [row["index"] for row in found.target] == [5, 9, 11] * 2
    assert found.token_texts[0] == found.token_texts[2] != found.token_texts[3]
    for i, text in enumerate((TEXT, SHORT)):
        for j, token in enumerate((5, 9, 11)):
            same(found, 3 * i + j, attrib.explain(subject, text, how, token))


def test_candidates_of_a_classifier_and_of_pictures() -> None:
    subject = model("bert", "classification")
    both = attrib.explain(subject, TEXT, "lrp", attrib.Candidates("LABEL_0", "LABEL_1"))
    for i in (0, 1):
        same(both, i, attrib.explain(subject, TEXT, "lrp", i))
    net = attrib.wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for method in ("saliency", "lrp", "guided_backprop", "deeplift"):
        found = attrib.explain(net, x, method, attrib.Candidates(attrib.LogProb(0), attrib.LogProb(3)))
        each = [attrib.explain(net, x[i : i + 1], method, attrib.LogProb(c)).values for i in (0, 1) for c in (0, 3)]
        torch.testing.assert_close(found.values, torch.cat(each))


def test_candidates_run_one_forward() -> None:
    subject, runs = model("llama"), []
    handle = subject.module.model.layers[0].register_forward_hook(lambda *_: runs.append(1))
    try:
        attrib.explain(subject, TEXT, "lrp", attrib.Candidates(5, 9, 11))
    finally:
        handle.remove()
    assert len(runs) == 1


@pytest.mark.parametrize("method", ["input_x_gradient", "attn_lrp", "positions", "occlusion"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_causal_model_read_early_is_the_model_of_the_beginning(family: str, method: str) -> None:
    subject, how = model(family), (SHARED | NOT_SHARED | {"input_x_gradient": attrib.InputXGradient()})[method]
    ids = list(subject.encode(TEXT).token_ids[0])
    for place in (3, -3):
        stop = place % len(ids) + 1
        for target in (attrib.TokenLogit(7, place), attrib.LogitDiff(7, 8, place), attrib.LogProb(7, place)):
            usual = {attrib.TokenLogit: 7, attrib.LogitDiff: attrib.LogitDiff(7, 8), attrib.LogProb: attrib.LogProb(7)}
            found = attrib.explain(subject, ids, how, target)
            assert found.target[0]["position"] == place
            same(found, 0, attrib.explain(subject, ids[:stop], how, usual[type(target)]))


def test_a_masked_model_is_read_anywhere() -> None:
    subject = model("bert", "masked")
    text = "the film [MASK] [MASK] good"
    with pytest.raises(InputError, match=r"holds 2 mask tokens.*which position to explain"):
        attrib.explain(subject, text, "saliency", 7)
    encoded = subject.encode(text, anywhere=True)
    masks = [i for i, t in enumerate(encoded.token_ids[0]) if t == subject.tokenizer.mask_token_id]
    both = attrib.Candidates(*(attrib.TokenLogit(7, place) for place in masks))
    found = attrib.explain(subject, text, "input_x_gradient", both)
    x = encoded.x.clone().requires_grad_()
    logits = subject.module(inputs_embeds=x).logits
    for row, place in enumerate(masks):
        (gradient,) = torch.autograd.grad(logits[0, place, 7], x, retain_graph=True)
        torch.testing.assert_close(found.values[row], (x * gradient).sum(2)[0].detach())
    assert found.values[0].sub(found.values[1]).abs().max() > 1e-3
    one = "the film [MASK] good"
    usual, said = (attrib.explain(subject, one, "saliency", t) for t in (7, attrib.TokenLogit(7, 3)))
    torch.testing.assert_close(usual.values, said.values)


def test_one_position_per_input() -> None:
    subject = model("gpt2")
    targets = [attrib.TokenLogit(7, 2), attrib.TokenLogit(8)]
    found = attrib.explain(subject, [TEXT, SHORT], "saliency", targets)
    assert [row.get("position") for row in found.target] == [2, None]
    same(found, 1, attrib.explain(subject, SHORT, "saliency", 8))
    assert (found.values[0, 3:] == 0).all() and (found.values[0, :3] > 0).all()


def test_what_is_no_position_or_candidate() -> None:
    with pytest.raises(TargetError, match="position 99 is out of range: the input has"):
        attrib.explain(model("gpt2"), TEXT, "saliency", attrib.TokenLogit(7, 99))
    for odd in (1.5, "2"):
        with pytest.raises(TargetError, match=f"position {odd!r} is no whole number"):
            attrib.explain(model("gpt2"), TEXT, "saliency", attrib.TokenLogit(7, odd))  # type: ignore[arg-type]
    with pytest.raises(TargetError, match="no output per token"):
        attrib.explain(model("bert", "classification"), TEXT, "saliency", attrib.LogProb(1, 2))
    with pytest.raises(TargetError, match="at least one target"):
        attrib.Candidates()
    with pytest.raises(TargetError, match="targets of several kinds, LogProb and Logit"):
        attrib.explain(model("gpt2"), TEXT, "saliency", attrib.Candidates(7, attrib.LogProb(8)))
    with pytest.raises(TargetError, match="is not one token"):
        attrib.explain(model("gpt2"), TEXT, "saliency", attrib.Candidates(" film", " photosynthesis"))


FAMILIES = sorted(set(text_families.DECODERS))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_generation_from_one_forward_is_that_of_every_beginning(family: str) -> None:
    """Each row equals explain() on the tokens before it, in every family, with the positions' parts and ledger."""
    subject = model(family)
    prompt, new = list(subject.encode(SHORT).token_ids[0]), [7, 30, 9]
    how: dict[str, Any] = {"lrp": attrib.LRP(), "input_x_gradient": attrib.InputXGradient()}
    for method in how.values():
        found = attrib.explain_generation(subject, SHORT, method, new)
        assert [len(texts) for texts in found.token_texts] == [len(prompt) + i for i in range(3)]
        for i, token in enumerate(new):
            alone = attrib.explain(subject, prompt + new[:i], method, token)
            same(found, i, alone)
            assert found[i].notes == alone.notes


def test_a_generation_of_contrasts_and_probabilities() -> None:
    subject, new = model("llama"), [7, 30]
    prompt = list(subject.encode(SHORT).token_ids[0])
    for target in (attrib.LogProb, lambda token: attrib.LogitDiff(token, 5), lambda token: token + 1):
        found = attrib.explain_generation(subject, SHORT, "lrp", new, target=target)
        for i, token in enumerate(new):
            same(found, i, attrib.explain(subject, prompt + new[:i], "lrp", target(token)))
    with pytest.raises(TargetError, match="the target of type function"):
        attrib.explain_generation(subject, SHORT, "saliency", new, target=lambda token: lambda logits: logits[:, token])


def test_only_language_models_generate() -> None:
    with pytest.raises(NotApplicable, match="does not generate"):
        attrib.explain_generation(model("bert", "masked"), TEXT)
