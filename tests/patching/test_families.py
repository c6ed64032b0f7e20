"""Families whose modules differ in ways that matter: sites found and patched rightly, edges right or refused in words.

Norms over all heads (OLMo2), parallel blocks with one key-value head (Falcon), flattened MLPs (OPT), biases by head
(MPT, BLOOM), compressed keys and values (DeepSeek), attention sinks (gpt-oss), mixtures of experts.
"""

from __future__ import annotations

import pytest
import text_families
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

import attrib
from attrib.methods import activation_patching
from attrib.methods.activation_patching import prompts_of
from attrib.methods.base import Question
from attrib.methods.pairs import of_rows
from attrib.patching.access import writing
from attrib.patching.pair import encode_pair
from attrib.patching.probing import structure_of
from attrib.patching.prompt import Patch, Prompt, Recomputation
from attrib.patching.sites import PatchSite, all_sites
from attrib.patching.structure import Joining
from attrib.rows import rows_of
from attrib.rules.shadow import shadow

SMALL = text_families.SMALL | {"max_position_embeddings": 64}
GROUPED = text_families.LLAMA
EXPERTS = GROUPED | {"num_experts": 4, "num_experts_per_tok": 2}
FAMILIES = {
    "olmo2": GROUPED,
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "opt": SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32, "activation_function": "gelu"},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "expansion_ratio": 2},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "deepseek_v3": GROUPED
    | {"num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
    | {"v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    | {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "gpt_oss": GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "rope_parameters": None},
    "mixtral": GROUPED | {"num_local_experts": 4},
    "qwen2_moe": EXPERTS | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
}
# norms or factors between a component and the stream, or on the stream; not those of FAMILIES
BEHIND = {
    "glm4": GROUPED | {"head_dim": 8},
    "exaone4": GROUPED | {"head_dim": 8},
    "granite": GROUPED | {"residual_multiplier": 0.22, "attention_multiplier": 0.35, "embedding_multiplier": 3.0},
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}
KV_HEADS = {"falcon": 1, "opt": 4, "mpt": 4, "bloom": 4, "deepseek_v3": 4}
ABSENT = {"falcon": {"resid_mid"}}
CLEAN, CORRUPTED = [5, 9, 17, 23, 3, 8], [5, 21, 17, 23, 3, 8]
GIVEN, ANSWER = attrib.pair([CLEAN], [CORRUPTED]), attrib.LogitDiff(12, 25)


def model(family: str):
    settings = (FAMILIES | BEHIND)[family] | {"vocab_size": text_families.ROWS, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **settings, pad_token_id=0)
    config._experts_implementation = "eager"  # the others have no float64
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval()
    return attrib.wrap(text_families.redrawn(module), tokenizer=text_families.byte_level())


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param, model(request.param)


def prompts(subject) -> tuple[Prompt, Prompt]:
    encoded = encode_pair(subject, GIVEN)
    rows, bound = rows_of(subject, encoded, ANSWER)
    question = Question(subject, shadow(subject.module), rows.x, bound, extra=rows.extra, corrupted=encoded.corrupted)
    return prompts_of(of_rows(question, torch.tensor([0])))


def test_sites_are_found_or_their_absence_is_told(family):
    name, subject = family
    structure = structure_of(subject)
    kinds = {site.kind for site in all_sites(structure)}
    every = {"embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head", *"qkv", "neuron"}
    assert every - kinds == ABSENT.get(name, set())
    assert (structure.heads, structure.kv_heads, structure.head_dim) == (4, KV_HEADS.get(name, 2), 8)
    assert structure.missing == ()


def test_queries_keys_and_values_are_each_heads_own(family):
    """Patched, they move the outputs of their own heads alone; queries at their own position alone."""
    _, subject = family
    structure, (clean, corrupted) = structure_of(subject), prompts(subject)
    group = structure.heads // structure.kv_heads
    own = [site for site in all_sites(structure) if site.kind in "qkv" and site.layer == 1]
    heads = [site for site in all_sites(structure) if site.kind == "head" and site.layer == 1]
    twin = shadow(subject.module)
    with torch.no_grad():
        values, _ = clean.values(twin, own)
        before, _ = corrupted.values(twin, heads)
        for site in own:
            change = writer(site, values[site.place])
            with writing(twin, {site.place: change}):
                after, _ = corrupted.values(twin, heads)
            moved = [(after[h.place] != before[h.place])[0, :, h.part].any(1).tolist() for h in heads]
            expected = [site.head] if site.kind == "q" else range(site.head * group, (site.head + 1) * group)
            assert [h for h, each in enumerate(moved) if any(each)] == list(expected), site.name
            if site.kind == "q":
                assert moved[site.head] == [p == 2 for p in range(len(CLEAN))]


def writer(site: PatchSite, values: Tensor, position: int = 2):
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed.view(1, -1, tensor.shape[-1])[0, position, site.part] = values[0, position, site.part]
        return changed

    return change


def test_estimates_are_derivatives_and_patches_are_whole_forwards(family):
    _, subject = family
    sites = all_sites(structure_of(subject))
    names = tuple(site.name for site in sites)
    clean, corrupted = prompts(subject)
    twin = shadow(subject.module)
    with torch.no_grad():
        values, _ = clean.values(twin, sites)
        patches = [Patch(site, p, values[site.place][0, p, site.part]) for site in sites for p in range(len(CLEAN))]
        base = corrupted.scores(twin, corrupted.x)
        whole = Recomputation(twin, corrupted, 64, lambda done: None).scores(patches) - base
    true = attrib.explain(subject, GIVEN, attrib.ActivationPatching(sites=names), ANSWER)
    assert not any("whole forward" in note for note in true.notes)
    assert whole.abs().max() > 0.1
    torch.testing.assert_close(true.values[0].flatten(), whole, rtol=1e-5, atol=1e-5)
    estimate = attrib.explain(subject, GIVEN, attrib.AttributionPatching(sites=names), ANSWER)
    one_step = attrib.explain(subject, GIVEN, attrib.AttributionPatching(sites=names, integrated=1), ANSWER)
    torch.testing.assert_close(one_step.values, estimate.values, rtol=1e-6, atol=1e-9)
    for site, found in zip(sites[1:], estimate.values[0, 1:], strict=True):
        expected = towards(twin, corrupted, site, values[site.place])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not attrib.explain(subject, GIVEN, attrib.RelP(sites=names), ANSWER, strict=True).coverage.uncovered


def test_pairs_of_one_length_are_patched_together(family, monkeypatch):
    """And get what each gets alone, in one batch, of another length or not."""
    _, subject = family
    sites = ("embed", "resid_*.*", "attn_out.*", "mlp_out.*", "head.*.*", "head.*.*.[qv]", "neuron.*")
    method = attrib.ActivationPatching(sites=tuple(s for s in sites if "mid" not in s))
    rows = [[5, 9, 17, 23, 3, 8], [5, 9, 40, 23, 3, 8, 60], [6, 9, 40, 30, 3, 70], [7, 9, 40, 30, 80, 70]]
    others = [[9, *row[1:-2], 33, row[-1]] for row in rows]
    calls = []
    original = activation_patching.true_effects
    monkeypatch.setattr(activation_patching, "true_effects", lambda base, *a: calls.append(1) or original(base, *a))
    targets = [attrib.LogitDiff(12, 25), attrib.LogitDiff(25, 12), attrib.LogitDiff(13, 40), attrib.LogitDiff(4, 25)]
    together = attrib.explain(subject, attrib.pair(rows, others), method, targets)
    assert len(calls) == 2 and not any("whole forward" in note for note in together.notes)
    for i, (clean, corrupted, target) in enumerate(zip(rows, others, targets, strict=True)):
        alone = attrib.explain(subject, attrib.pair([clean], [corrupted]), method, target)
        torch.testing.assert_close(together.values[i, :, : len(clean)], alone.values[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together.score[i], alone.score[0])
        assert alone.values.abs().max() > 0.1


def towards(twin, prompt: Prompt, site: PatchSite, clean: Tensor) -> Tensor:
    """(positions,): d metric/dt of the site moved by t·(clean − corrupted), one t for each position."""
    step = torch.zeros(len(CLEAN), dtype=torch.float64, requires_grad=True)

    def move(tensor: Tensor) -> Tensor:
        difference = torch.zeros_like(clean)
        difference[..., site.part] = (clean - tensor.detach().reshape(clean.shape))[..., site.part]
        return tensor + (step[None, :, None] * difference).reshape(tensor.shape)

    with torch.enable_grad(), writing(twin, {site.place: move}):
        score = prompt.scores(twin, prompt.x.clone().requires_grad_())
    return torch.autograd.grad(score.sum(), step)[0]


def test_all_edges_are_the_model(family):
    name, subject = family
    result = attrib.explain(subject, GIVEN, attrib.RelP(edges=True), ANSWER)
    # a part of DeepSeek's keys is shared by all heads, so that it is no head's own input
    assert ("attn_in.0" in result.receivers) == (name == "deepseek_v3") != ("head.0.0.k" in result.receivers)
    found = attrib.circuit(subject, GIVEN, result, 1.0, sizes=(0,))
    metrics = [float(result.parts[f"metric_{run}"][0]) for run in ("corrupted", "clean")]
    assert [found.empty, found.full] == pytest.approx(metrics, abs=1e-5)


@pytest.mark.parametrize("family", BEHIND)
def test_norms_and_factors_behind_components_are_passed_by_edges(family):
    subject = model(family)
    result = attrib.explain(subject, GIVEN, attrib.RelP(edges=True), ANSWER)
    assert any(not isinstance(s, Joining) or s.by for s in structure_of(subject).layers[0].course)
    found = attrib.circuit(subject, GIVEN, result, 1.0, sizes=(0,))
    metrics = [float(result.parts[f"metric_{run}"][0]) for run in ("corrupted", "clean")]
    assert [found.empty, found.full] == pytest.approx(metrics, abs=1e-5) and abs(metrics[0] - metrics[1]) > 0.1
