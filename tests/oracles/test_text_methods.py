"""Methods on token embeddings against loops written out here, and rollout against weights the models hand out."""

from __future__ import annotations

import dataclasses
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import ViTConfig, ViTForImageClassification

import attrib
from attrib.errors import InputError, NotApplicable, UnknownName
from attrib.methods.base import Question
from attrib.methods.baselines import TEXT_BASELINES, baseline_of
from attrib.methods.units import spread, units
from attrib.models.text import TextModel, wrap_text
from attrib.rules.opened import OpenedAttention
from attrib.rules.shadow import shadow
from attrib.targets import bind

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import text_families

LONG, SHORT = "The film was not good at all.", "wonderful music"
FAMILIES = {"bert": "classification", "gpt2": "next_token", "llama": "next_token"}
NAMES = [name for name, cls in attrib.METHODS.items() if "text" in cls.applies_to]
_CHEAP = {"n_steps": 4, "n_samples": 16}


def model(family: str, attention: str | None = None) -> TextModel:
    tokenizer = text_families.word_piece() if family == "bert" else text_families.byte_level()
    module = text_families.model(family, FAMILIES[family], attention).double()
    return wrap_text(module, tokenizer)


def cheap(name: str) -> Any:
    method = attrib.METHODS[name]()
    fields = {field.name for field in dataclasses.fields(method)}
    return dataclasses.replace(method, **{k: v for k, v in _CHEAP.items() if k in fields})


def question(subject: TextModel, text: str | list[str], target: int = 1) -> Question:
    e = subject.encode(text)
    bound = bind(target, len(e.x), subject.index_of)
    return Question(subject, shadow(subject.module), e.x, bound, extra=e.extra, words=e.words, token_ids=e.token_ids)


def score(q: Question, x: Tensor) -> Tensor:
    with torch.no_grad():
        return q.scores(x)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_padding_gets_nothing_and_changes_nothing(name, family):
    subject = model(family)
    together = attrib.explain(subject, [LONG, SHORT], cheap(name), 1)
    alone = attrib.explain(subject, SHORT, cheap(name), 1)
    n = alone.values.shape[1]
    assert together.kind == alone.kind == "tokens"
    assert together.values.shape[1] > n
    assert (together.values[1, n:] == 0).all()
    torch.testing.assert_close(together.values[1, :n], alone.values[0], rtol=1e-6, atol=1e-9)


def test_gradient_methods_are_sums_and_lengths_over_the_embedding():
    subject = model("bert")
    q = question(subject, LONG)
    _, gradient = q.gradient(q.x)
    torch.testing.assert_close(attrib.explain(subject, LONG, "saliency", 1).values, gradient.norm(dim=2))
    torch.testing.assert_close(attrib.explain(subject, LONG, "input_x_gradient", 1).values, (gradient * q.x).sum(2))


def test_smoothgrad_without_noise_is_the_length_of_the_gradient():
    subject = model("gpt2")
    quiet = attrib.SmoothGrad(n_samples=2, noise_level=0.0)
    smooth, plain = (attrib.explain(subject, LONG, m, 1).values for m in (quiet, "saliency"))
    torch.testing.assert_close(smooth, plain)


@pytest.mark.parametrize("baseline", ["zero", "pad", "mask", "unk"])
def test_integrated_gradients_add_up_to_the_difference(baseline):
    subject = model("bert")
    q = question(subject, LONG)
    result = attrib.explain(subject, LONG, attrib.IntegratedGradients(baseline=baseline), 1)
    difference = score(q, q.x) - score(q, baseline_of(baseline, q))
    torch.testing.assert_close(result.values.sum(1), difference, rtol=1e-6, atol=1e-9)
    assert (result.values[:, [0, -1]] == 0).all()  # [CLS] and [SEP] are their own baseline


def test_a_tolerance_begins_with_few_steps_on_a_smooth_model():
    result = attrib.explain(model("bert"), LONG, attrib.IntegratedGradients(tolerance=1e-3), 1)
    assert "8 steps meet the tolerance of 0.001" in result.notes


@pytest.mark.parametrize("name", TEXT_BASELINES)
def test_baselines_keep_special_tokens(name):
    subject = model("bert")
    q = question(subject, [LONG, SHORT])
    baseline = baseline_of(name, q)
    n = len(q.token_ids[1])
    assert torch.equal(baseline[:, 0], q.x[:, 0])
    assert torch.equal(baseline[1, n - 1 :], q.x[1, n - 1 :])  # [SEP] and padding
    assert not torch.equal(baseline[1, 1 : n - 1], q.x[1, 1 : n - 1])
    token = {"pad": "[PAD]", "mask": "[MASK]", "unk": "[UNK]"}.get(name)
    if token is not None:
        expected = subject.embeddings.weight[subject.tokenizer.convert_tokens_to_ids(token)]
        assert torch.equal(baseline[0, 1], expected)
    torch.testing.assert_close(baseline[1, :n], baseline_of(name, question(subject, SHORT))[0], rtol=0, atol=0)


def test_names_of_baselines_that_do_not_fit():
    subject = model("gpt2")
    subject.tokenizer = type("NoTokens", (), {"all_special_ids": [], "unk_token_id": 5})()
    with pytest.raises(InputError, match="no mask token; use zero, unk, noise"):
        baseline_of("mask", dataclasses.replace(question(model("gpt2"), LONG), model=subject))
    with pytest.raises(InputError, match="no baseline of texts; these are: zero, pad, mask, unk, noise"):
        attrib.explain(model("gpt2"), LONG, attrib.IntegratedGradients(baseline="blur"))
    with pytest.raises(UnknownName, match="nothing"):
        attrib.explain(model("gpt2"), LONG, attrib.IntegratedGradients(baseline="nothing"))
    picture = attrib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    with pytest.raises(InputError, match="no baseline of pictures; these are: zero, mean"):
        attrib.explain(picture, torch.randn(1, 3, 2, 2), attrib.IntegratedGradients(baseline="pad"))


@pytest.mark.parametrize("unit", ["word", "token"])
def test_occlusion_is_the_drop_of_every_part(unit):
    subject = model("bert")
    q = question(subject, "The undertakings, wonderful!")
    words = q.words[0]
    assert len({w for w in words if w is not None}) < sum(w is not None for w in words), "no word of two tokens"
    blank = baseline_of("mask", q)
    expected = torch.zeros_like(q.x[:, :, 0])
    for token in (t for t, w in enumerate(words) if w is not None):
        part = [t for t, w in enumerate(words) if w == words[token]] if unit == "word" else [token]
        x = q.x.clone()
        x[:, part] = blank[:, part]
        expected[0, token] = (score(q, q.x) - score(q, x))[0] / len(part)
    found = attrib.explain(subject, "The undertakings, wonderful!", attrib.Occlusion(baseline="mask", unit=unit), 1)
    torch.testing.assert_close(found.values, expected, rtol=1e-6, atol=1e-9)


def test_kernel_shap_is_the_shapley_value_of_words():
    subject, text = model("bert"), "not good music"
    q = question(subject, text)
    (parts,) = units(q, "word")
    blank, n = baseline_of("zero", q), int(parts.max()) + 1
    assert n == 3
    shares = torch.zeros(n, dtype=torch.float64)
    orders = list(permutations(range(n)))
    for order in orders:
        x = blank.clone()
        for part in order:
            before = score(q, x)
            x[0, parts == part] = q.x[0, parts == part]
            shares[part] += (score(q, x) - before)[0] / len(orders)
    found = attrib.explain(subject, text, attrib.KernelSHAP(), 1)
    torch.testing.assert_close(found.values[0], spread(shares, parts), rtol=1e-6, atol=1e-9)


def test_one_word_has_it_all():
    subject = model("bert")
    q = question(subject, "music")
    result = attrib.explain(subject, "music", attrib.KernelSHAP(), 1)
    torch.testing.assert_close(result.values.sum(1), score(q, q.x) - score(q, baseline_of("zero", q)))


@pytest.mark.parametrize("family", FAMILIES)
def test_rollout_of_the_weights_that_the_model_hands_out(family):
    eager, text = model(family, "eager"), LONG
    q = question(eager, text)
    x = q.x.clone().requires_grad_()
    output = shadow(eager.module)(inputs_embeds=x, output_attentions=True)
    explained = output.logits[:, 1] if family == "bert" else output.logits[:, -1, 1]
    row = 0 if family == "bert" else -1
    gradients = torch.autograd.grad(explained.sum(), output.attentions)
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    plain, helpful = eye, eye
    for attention, gradient in zip(output.attentions, gradients, strict=True):
        mixed = attention[0].mean(0) + eye
        plain = mixed / mixed.sum(1, keepdim=True) @ plain
        helpful = (eye + (attention * gradient)[0].clamp_min(0).mean(0)) @ helpful
    near = {"rtol": 1e-4, "atol": 1e-6}  # LLaMA's eager softmax is in float32
    for attention in ("eager", "sdpa"):
        subject = model(family, attention)
        rolled = attrib.explain(subject, text, "attention_rollout", 1)
        torch.testing.assert_close(rolled.values[0], plain[row].detach().double(), **near)
        weighted = attrib.explain(subject, text, "gradient_attention_rollout", 1)
        torch.testing.assert_close(weighted.values[0], (helpful - eye)[row].detach().double(), **near)
        assert any("opened" in note for note in weighted.notes) == (attention == "sdpa")


@pytest.mark.parametrize("name", ["attention_rollout", "gradient_attention_rollout"])
@pytest.mark.parametrize("kind", ["transformers", "torchvision"])
def test_rollout_of_a_vision_transformer_is_a_grid(kind, name):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    if kind == "transformers":
        net: nn.Module = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **sizes)).eval()
    else:
        net = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 16, num_classes=3).eval()
        nn.init.normal_(net.heads.head.weight)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    result = attrib.explain(attrib.wrap(net), torch.randn(2, 3, 32, 32), name, 1)
    assert result.kind == "layer"
    assert result.values.shape == (2, 4, 4)
    assert (result.values >= 0).all()
    assert (result.values > 0).any()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert torch._C._len_torch_function_stack() == 0


def test_rollout_needs_attention():
    net = attrib.wrap(nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(NotApplicable, match="no attention"):
        attrib.explain(net, torch.randn(1, 3, 8, 8), "attention_rollout")


class Fused(TorchFunctionMode):
    """Counts the fused attention that really runs."""

    runs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.runs += func is nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_who_opens_attention_says_so(name, family):
    subject = model(family, "sdpa")
    with Fused() as fused:
        result = attrib.explain(subject, SHORT, cheap(name), 1)
    assert any("opened" in note for note in result.notes) == (fused.runs == 0)


@pytest.mark.parametrize("how", ["plain", "causal", "boolean", "additive", "grouped"])
def test_opened_attention_is_fused_attention(how):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 5, 3, dtype=torch.float64) for _ in range(3))
    settings: dict[str, Any] = {
        "plain": {"scale": 0.3},
        "causal": {"is_causal": True},
        "boolean": {"attn_mask": torch.rand(2, 1, 5, 5) > 0.5},
        "additive": {"attn_mask": torch.randn(2, 1, 5, 5, dtype=torch.float64)},
        "grouped": {"enable_gqa": True},
    }[how]
    if how == "grouped":
        k, v = k[:, :2], v[:, :2]
    if how == "boolean":
        settings["attn_mask"][0, 0, 2] = False  # a token that may attend to nothing
    expected = nn.functional.scaled_dot_product_attention(q, k, v, **settings)
    with OpenedAttention(2, keep_graph=True) as watch:
        found = nn.functional.scaled_dot_product_attention(q, k, v, **settings)
    torch.testing.assert_close(found, expected)
    assert [w.shape for w in watch.weights] == [(2, 4, 5, 5)]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_generation_is_explained_token_by_token(family):
    subject = model(family)
    prompt = list(subject.encode("The film was").token_ids[0])
    new = attrib.explain_generation(subject, "The film was", "input_x_gradient", max_new_tokens=3)
    generated = [row["index"] for row in new.target]
    assert new.values.shape == (len(generated), len(prompt) + len(generated) - 1)
    for i, token in enumerate(generated):
        ids = prompt + generated[:i]
        alone = attrib.explain(subject, ids, "input_x_gradient")  # what is likeliest is what was generated
        assert alone.target[0]["index"] == token
        torch.testing.assert_close(new.values[i, : len(ids)], alone.values[0], rtol=1e-6, atol=1e-9)
        assert (new.values[i, len(ids) :] == 0).all()
    given = attrib.explain_generation(subject, "The film was", "lrp", generated, target=attrib.LogProb)
    assert [row["kind"] for row in given.target] == ["log_probability"] * len(generated)


@pytest.mark.parametrize("preset", ["attn_lrp", "cp_lrp"])
def test_mixtures_of_experts_account_for_everything(preset):
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    tokenizer = model("gpt2").tokenizer
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    settings = {"intermediate_size": 48, "num_local_experts": 4, "vocab_size": len(tokenizer) + 2}
    module = MixtralForCausalLM(MixtralConfig(**sizes, **settings)).eval()
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, 0, 0.15)
    # the product of all experts at once has no float64
    result = attrib.explain(attrib.wrap(module, tokenizer=tokenizer), SHORT, attrib.LRP(preset=preset), 1, strict=True)
    assert not result.coverage.uncovered
    assert (result.ledger["unaccounted"] / result.score).abs().max() < 1e-4


def test_writing_stops_between_two_tokens():
    told: list[tuple[float, str]] = []

    def stop_at_the_third(fraction: float, message: str) -> None:
        told.append((fraction, message))
        if len(told) == 3:
            raise attrib.Cancelled("stopped")

    with pytest.raises(attrib.Cancelled):
        attrib.explain_generation(model("gpt2"), "The film was", max_new_tokens=6, on_progress=stop_at_the_third)
    assert told == [(0.0, "writing"), (0.5 / 6, "writing"), (1 / 6, "writing")]


def test_what_no_generation_can_be_explained_of():
    with pytest.raises(NotApplicable, match="does not generate"):
        attrib.explain_generation(model("bert"), "The film")
    with pytest.raises(InputError, match="no generated token"):
        attrib.explain_generation(model("gpt2"), "The film", "lrp", "")
    with pytest.raises(InputError, match="takes one"):
        attrib.explain_generation(model("gpt2"), ["The film", "was"], "lrp", " good")
