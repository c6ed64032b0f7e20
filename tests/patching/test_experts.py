"""Neurons of mixtures of experts: patched as in a mixture that is written by hand, however the model spells its own.

Experts that are one module with rows gathered for each (Mixtral), a leaf with biases (gpt-oss), all experts on every
row in one product (Llama 4), modules for each projection (JetMoe), and weights in two dimensions (DBRX).
"""

from __future__ import annotations

from functools import partial

import pytest
import text_families
import torch
from torch.nn.functional import silu
from transformers import AutoConfig, AutoModelForCausalLM

import attrib
from attrib.patching.probing import structure_of
from attrib.patching.sites import select

WIDTH, EXPERTS = 48, 4
BASE = text_families.LLAMA | {"vocab_size": text_families.ROWS, "pad_token_id": 0, "num_local_experts": EXPERTS}
MORE = {
    "mixtral": {},
    "gpt_oss": {"num_experts_per_tok": 2, "head_dim": 8, "rope_parameters": None},
    "llama4_text": {"head_dim": 8, "moe_layers": [0, 1], "num_experts_per_tok": 1, "intermediate_size_mlp": WIDTH},
    "jetmoe": {"num_experts_per_tok": 2, "kv_channels": 8},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0}}
    | {"ffn_config": {"ffn_hidden_size": WIDTH, "moe_num_experts": EXPERTS, "moe_top_k": 2, "hidden_size": 32}}
    | {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
    "granitemoeshared": {"shared_intermediate_size": 16, "residual_multiplier": 0.5},
}
CLEAN, CORRUPTED = [5, 9, 17, 23, 3, 8], [5, 21, 17, 23, 3, 8]
GIVEN, ANSWER = attrib.pair([CLEAN], [CORRUPTED]), attrib.LogitDiff(12, 25)
NAMES = ("neuron.0", "neuron.1", *(f"neuron.1.{first}:{first + WIDTH}" for first in range(0, EXPERTS * WIDTH, WIDTH)))
NAMES += (f"neuron.0.{2 * WIDTH + 17}",)


def network(family: str, dtype: torch.dtype = torch.float64, experts: str = "eager"):
    config = AutoConfig.for_model(family, **BASE | MORE[family])
    config._experts_implementation = experts
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype).eval()
    text_families.redrawn(module)
    for norm in module.modules():
        if type(norm).__name__.endswith("RMSNorm"):
            norm.forward = partial(in_double, norm.weight)
    return module


def in_double(weight, x):
    """The norm without its cast to float32, which would turn differences of 1e-16 into some of 1e-8."""
    return weight * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


def mixtral(mixture, x):
    """(units (positions, experts, width), what the mixture makes of such units)."""
    _, scores, chosen = mixture.gate(x)
    route = x.new_zeros(len(x), EXPERTS).scatter(1, chosen, scores.to(x))
    gate, up = torch.einsum("th,eoh->teo", x, mixture.experts.gate_up_proj).chunk(2, -1)
    down = mixture.experts.down_proj
    return silu(gate) * up * (route != 0)[..., None], lambda units: torch.einsum("te,tei,ehi->th", route, units, down)


def gpt_oss(mixture, x):
    _, scores, chosen = mixture.router(x)
    experts, route = mixture.experts, x.new_zeros(len(x), EXPERTS).scatter(1, chosen, scores.to(x))
    made = torch.einsum("th,eho->teo", x, experts.gate_up_proj) + experts.gate_up_proj_bias
    gate, up = made[..., ::2].clamp(max=experts.limit), made[..., 1::2].clamp(-experts.limit, experts.limit)
    units = (up + 1) * gate * torch.sigmoid(gate * experts.alpha) * (route != 0)[..., None]
    return units, lambda units: torch.einsum(
        "te,teh->th", route, torch.einsum("tei,eih->teh", units, experts.down_proj) + experts.down_proj_bias
    )


def llama4_text(mixture, x):
    scores, experts = mixture.router(x)[0], mixture.experts
    gate, up = torch.einsum("te,th,eho->teo", scores, x, experts.gate_up_proj).chunk(2, -1)
    shared = mixture.shared_expert(x)
    return up * silu(gate), lambda units: shared + torch.einsum("tei,eih->th", units, experts.down_proj)


def jetmoe(mixture, x):
    scores, chosen = mixture.router.layer(x).float().topk(2, dim=1)
    route = x.new_zeros(len(x), EXPERTS).scatter(1, chosen, scores.softmax(1).to(x))
    gate, up = torch.einsum("th,eoh->teo", x, mixture.input_linear.weight).chunk(2, -1)
    down = mixture.output_linear.weight
    units = mixture.activation(gate) * up * (route != 0)[..., None]
    return units, lambda units: torch.einsum("te,tei,ehi->th", route, units, down) + mixture.bias


def dbrx(mixture, x):
    scores, chosen = mixture.route_tokens_to_experts(mixture.router(x))
    route, own = x.new_zeros(len(x), EXPERTS).scatter(1, chosen, scores), mixture.experts.mlp
    gate, up, down = (weights.view(EXPERTS, WIDTH, -1) for weights in (own.w1, own.v1, own.w2))
    units = silu(torch.einsum("th,eih->tei", x, gate)) * torch.einsum("th,eih->tei", x, up) * (route != 0)[..., None]
    return units, lambda units: torch.einsum("te,tei,eih->th", route, units, down)


BY_HAND = {"dbrx": dbrx, "mixtral": mixtral, "gpt_oss": gpt_oss, "llama4_text": llama4_text, "jetmoe": jetmoe}


class Hand:
    """The network with its mixtures written by hand; change: layer, units → other units."""

    def __init__(self, family):
        self.module = network(family)
        self.change = lambda layer, units: units
        blocks = self.module.transformer.blocks if family == "dbrx" else self.module.model.layers
        for layer, block in enumerate(blocks):
            mixture = getattr(block, {"llama4_text": "feed_forward", "dbrx": "ffn"}.get(family, "mlp"))
            mixture.forward = self.forward(family, mixture, layer, pair=family in ("llama4_text", "gpt_oss"))

    def forward(self, family, mixture, layer, pair):
        def forward(hidden):
            units, finish = BY_HAND[family](mixture, hidden.reshape(-1, hidden.shape[-1]))
            made = finish(self.change(layer, units.contiguous())).view_as(hidden)
            return (made, None) if pair else made

        return forward

    def metric(self, tokens, change=lambda layer, units: units):
        self.change = change
        with torch.no_grad():
            logits = self.module(torch.tensor([tokens])).logits[0, -1]
        return float(logits[12] - logits[25])


@pytest.fixture(scope="module", params=BY_HAND)
def subject(request):
    return request.param, attrib.wrap(network(request.param), tokenizer=text_families.byte_level())


def test_patches_are_those_of_mixtures_written_by_hand(subject):
    family, model = subject
    assert not any("neuron" in why for why in structure_of(model).missing)
    sites = select(structure_of(model), NAMES)
    found = attrib.explain(model, GIVEN, attrib.ActivationPatching(sites=NAMES), ANSWER)
    assert not any("whole forward" in note for note in found.notes)
    hand, clean = Hand(family), {}
    hand.metric(CLEAN, lambda layer, units: clean.setdefault(layer, units))
    base = hand.metric(CORRUPTED)
    for number, site in enumerate(sites):
        for position in range(len(CLEAN)):

            def patch(layer, units, site=site, position=position):
                if layer == site.layer:
                    units.view(len(CLEAN), -1)[position, site.part] = clean[layer].flatten(1)[position, site.part]
                return units

            expected = hand.metric(CORRUPTED, patch) - base
            assert float(found.values[0, number, position]) == pytest.approx(expected, abs=1e-10), site.name
    effects = found.values[0].abs().amax(-1)
    assert effects[:2].min() > 1e-3 and (effects[2:6] > 1e-3).any()


def test_estimates_are_slopes_and_rules_are_in_force(subject):
    """Attribution patching is the slope of patches along the way; RelP leaves nothing uncovered."""
    _, model = subject
    hand, clean = Hand(subject[0]), {}
    hand.metric(CLEAN, lambda layer, units: clean.setdefault(layer, units))
    steps = torch.zeros(2, len(CLEAN), dtype=torch.float64, requires_grad=True)
    hand.change = lambda layer, units: units + steps[layer, :, None, None] * (clean[layer] - units).detach()
    logits = hand.module(torch.tensor([CORRUPTED])).logits[0, -1]
    slopes = torch.autograd.grad(logits[12] - logits[25], steps)[0]
    names = ("neuron.0", "neuron.1")
    found = attrib.explain(model, GIVEN, attrib.AttributionPatching(sites=names), ANSWER).values[0]
    torch.testing.assert_close(found, slopes, rtol=0, atol=1e-6)
    relp = attrib.explain(model, GIVEN, attrib.RelP(sites=names), ANSWER, strict=True)
    assert not relp.coverage.uncovered and (relp.values[0] - found).abs().max() > 1e-3
    same = attrib.explain(model, attrib.pair([CLEAN], [CLEAN]), attrib.RelP(sites=names), ANSWER)
    assert not same.values.any()


@pytest.mark.parametrize("implementation", ["grouped_mm", "batched_mm"])
def test_other_ways_to_multiply_find_the_same(implementation):
    """Rows sorted by expert for one product, and weights gathered for each row."""
    results = []
    for experts in ("eager", implementation):
        model = attrib.wrap(network("mixtral", torch.float32, experts), tokenizer=text_families.byte_level())
        for method in (attrib.ActivationPatching, attrib.RelP):
            results.append(attrib.explain(model, GIVEN, method(sites=NAMES), ANSWER).values)
    torch.testing.assert_close(results[2:], results[:2], rtol=1e-3, atol=1e-4)


def test_what_a_block_adds_up_by_itself_is_its_mlp_out():
    """Granite's experts and its shared one are added by the block, so that no module puts out mlp_out."""
    module = network("granitemoeshared")
    model = attrib.wrap(module, tokenizer=text_families.byte_level())
    parts = [part for block in module.model.layers for part in (block.block_sparse_moe, block.shared_mlp)]
    clean = {}

    def metric(tokens, patched=(), at=0):
        def hook(part, _, output):
            if part in patched:
                output[0, at] = clean[part][0, at]
            clean.setdefault(part, output.clone())

        handles = [part.register_forward_hook(hook) for part in parts]
        with torch.no_grad():
            logits = module(torch.tensor([tokens])).logits[0, -1]
        for handle in handles:
            handle.remove()
        return float(logits[12] - logits[25])

    metric(CLEAN)
    base = metric(CORRUPTED)
    expected = [metric(CORRUPTED, pair, at) for pair in (parts[:2], parts[2:]) for at in range(len(CLEAN))]
    found = attrib.explain(model, GIVEN, attrib.ActivationPatching(sites="mlp_out.*"), ANSWER)
    assert not any("whole forward" in note for note in found.notes)
    assert (found.values[0].flatten() + base).tolist() == pytest.approx(expected, abs=1e-10)
    edges = attrib.explain(model, GIVEN, attrib.RelP(edges=True), ANSWER)
    circuit = attrib.circuit(model, GIVEN, edges, 1.0, sizes=(0,))
    metrics = [float(edges.parts[f"metric_{run}"][0]) for run in ("corrupted", "clean")]
    assert [circuit.empty, circuit.full] == pytest.approx(metrics, abs=1e-9)
