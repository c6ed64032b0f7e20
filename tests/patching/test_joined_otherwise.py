"""A stream scaled and shifted by vectors where it is joined (ZAYA), attention that hands what it makes to an MLP, and
that to a mixer (both Zambas), adapters beside projections: against whole forwards with hooks on the very modules."""

from __future__ import annotations

from functools import cache

import pytest
import text_families
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

import attrib
from attrib.patching.probing import structure_of
from attrib.patching.sites import all_sites, select
from attrib.patching.trace import Trace
from attrib.rules.shadow import shadow
from tests.patching.short_pair import ANSWER, CLEAN, CORRUPTED, LAST, PAIR, rows

SMALL = text_families.SMALL | {"max_position_embeddings": 64, "num_key_value_heads": 4}
HYBRID = {"layers_block_type": ["mamba", "hybrid", "hybrid"], "num_hidden_layers": 3, "mamba_d_state": 4}
SIZES = {
    # with the one that does nothing as many experts as the tokens that models are probed with
    "zaya": text_families.LLAMA
    | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
    | {"router_hidden_size": 16, "layer_types": ["hybrid", "hybrid"]},
    "zamba": SMALL | HYBRID | {"n_mamba_heads": 2, "mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "llama": text_families.LLAMA,
    "zamba2": SMALL
    | HYBRID
    | {"mamba_ngroups": 2, "n_mamba_heads": 8, "mamba_headdim": 8, "num_mem_blocks": 1, "chunk_size": 4}
    | {"use_shared_attention_adapter": True, "adapter_rank": 8},
}


def head(number):
    """Of (1, tokens, heads, width)."""
    return lambda tensor, p: tensor[0, p, number]


def hybrid(layer, shared):
    """Where a layer with attention has what."""
    block = f"model.layers.{layer}"
    return {
        f"head.{layer}.2": (f"{block}.{shared}.self_attn.o_proj", "input", 0, rows(32, 48)),
        f"attn_out.{layer}": (f"{block}.{shared}.self_attn", "output", 0, rows()),
        f"neuron.{layer}.7:30": (f"{block}.{shared}.feed_forward.down_proj", "input", 0, rows(7, 30)),
        f"mlp_out.{layer}": (f"{block}.linear", "output", 0, rows()),
        f"mixer_out.{layer}": (f"{block}.mamba_decoder.mamba", "output", 0, rows()),
    }


LAYER = "model.layers.1"
# family → site → (module, what of it, which of these, its part at a position)
WHERE = {
    "zaya": {
        "attn_out.0": ("model.layers.0.self_attn", "output", 0, rows()),
        "resid_mid.0": ("model.layers.0.post_attention_residual_scale", "output", 0, rows()),
        "mlp_out.0": ("model.layers.0.mlp", "output", 0, rows()),
        "attn_out.1": (f"{LAYER}.self_attn", "output", 0, rows()),
        "mlp_out.1": (f"{LAYER}.mlp", "output", 0, rows()),
        "head.1.2": (f"{LAYER}.self_attn.o_proj", "input", 0, rows(16, 24)),
        # convolved, and added to what was not
        "head.1.2.q": (f"{LAYER}.self_attn.qkv_proj", "output", 0, head(2)),
        "head.0.1.k": ("model.layers.0.self_attn.qkv_proj", "output", 1, head(1)),
        "head.1.0.k": (f"{LAYER}.self_attn.qkv_proj", "output", 1, head(0)),
        # one half of it is of the token before
        "head.0.1.v": ("model.layers.0.self_attn.qkv_proj", "output", 2, head(1)),
        "head.1.0.v": (f"{LAYER}.self_attn.qkv_proj", "output", 2, head(0)),
    },
    # its projections have adapters beside them
    "llama": {
        "head.1.2.q": (f"{LAYER}.self_attn.q_proj", "output", 0, rows(16, 24)),
        "head.0.1.k": ("model.layers.0.self_attn.k_proj", "output", 0, rows(8, 16)),
        "head.1.0.k": (f"{LAYER}.self_attn.k_proj", "output", 0, rows(0, 8)),
        "head.1.1.v": (f"{LAYER}.self_attn.v_proj", "output", 0, rows(8, 16)),
        "mlp_out.1": (f"{LAYER}.mlp", "output", 0, rows()),
    },
    "zamba": hybrid(1, "shared_transf") | hybrid(2, "shared_transf"),
    "zamba2": hybrid(1, "shared_transformer") | hybrid(2, "shared_transformer"),
}


class Adapted(nn.Module):
    """A projection and one of lower rank beside it, the two added up."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(base.in_features, 4, False), nn.Linear(4, base.out_features, False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def adapted(module):
    """With adapters beside queries, keys and values."""
    for layer in module.model.layers:
        for name in ("q_proj", "k_proj", "v_proj"):
            setattr(layer.self_attn, name, Adapted(getattr(layer.self_attn, name)))
    return module


@cache
def wrapped(family):
    more = {"vocab_size": text_families.ROWS, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **SIZES[family], **more)
    config._experts_implementation = "eager"
    torch.manual_seed(2)
    module = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    module = (adapted(module) if family == "llama" else module).double().eval()
    return attrib.wrap(text_families.redrawn(module), tokenizer=text_families.byte_level())


def metric(module, tokens, where=None, visit=None):
    """The metric while what `visit` makes of the tensor at `where` takes its place."""
    if where is None:
        logits = module(torch.tensor([tokens])).logits[0, LAST]
        return (logits[12] - logits[25]).double()
    path, reads, which, _ = where

    def behind(_, given, output):
        if isinstance(output, tuple):
            return (*output[:which], visit(output[which]), *output[which + 1 :])
        return visit(output)

    def before(_, given):
        return (*given[:which], visit(given[which]), *given[which + 1 :])

    spot = module.get_submodule(path)
    hook = spot.register_forward_hook(behind) if reads == "output" else spot.register_forward_pre_hook(before)
    with hook:
        return metric(module, tokens)


@torch.no_grad()
def expected(module, where):
    """For every position, what the metric does when that part of the corrupted run is the clean one's."""
    kept, part = [], where[3]
    metric(module, CLEAN, where, lambda tensor: kept.append(tensor.clone()) or tensor)
    base = metric(module, CORRUPTED)

    def written(tensor, position):
        tensor = tensor.clone()
        part(tensor, position).copy_(part(kept[0], position))
        return tensor

    return [metric(module, CORRUPTED, where, lambda t, p=p: written(t, p)) - base for p in range(LAST + 1)]


@pytest.mark.parametrize("family", WHERE)
def test_patches_are_those_of_whole_forwards(family):
    model, names = wrapped(family), tuple(WHERE[family])
    found = attrib.explain(model, PAIR, attrib.ActivationPatching(sites=names), ANSWER).values[0]
    for values, where in zip(found, WHERE[family].values(), strict=True):
        torch.testing.assert_close(values, values.new_tensor(expected(model.module, where)), rtol=0, atol=1e-9)
    assert found.abs().amax(1).min() > 1e-4


@pytest.mark.parametrize("family", WHERE)
def test_estimates_are_the_slopes_of_whole_forwards(family):
    model, names = wrapped(family), tuple(WHERE[family])
    found = attrib.explain(model, PAIR, attrib.AttributionPatching(sites=names), ANSWER).values[0]
    for values, where in zip(found, WHERE[family].values(), strict=True):
        kept, part = [], where[3]
        metric(model.module, CLEAN, where, lambda tensor, kept=kept: kept.append(tensor.clone()) or tensor)
        size = torch.zeros(LAST + 1, dtype=torch.float64, requires_grad=True)

        def moved(tensor, size=size, clean=kept[0], part=part):
            difference = torch.zeros_like(tensor)
            for p in range(LAST + 1):
                part(difference, p).copy_(part(clean, p) - part(tensor.detach(), p))
            return tensor + size.view(1, -1, *(1,) * (tensor.dim() - 2)) * difference

        (slopes,) = torch.autograd.grad(metric(model.module, CORRUPTED, where, moved), size)
        torch.testing.assert_close(values, slopes, rtol=0, atol=1e-9)


def test_neurons_of_an_expert_are_those_of_experts_written_here(monkeypatch):
    """ZAYA sends a token to one expert, or to none; where it goes is left as it is."""
    model = wrapped("zaya")
    experts = model.module.get_submodule("model.layers.0.mlp.experts")
    width, kept = SIZES["zaya"]["moe_intermediate_size"], {}

    def run(tokens, position=None, wanted=slice(None)):
        def forward(hidden, index, weights):
            units = hidden.new_zeros(len(hidden), experts.num_experts, width)
            for row, expert in enumerate(index[:, 0]):
                gate, up = (experts.gate_up_proj[expert] @ hidden[row]).chunk(2)
                units[row, expert] = experts.act_fn(gate) * up
            kept[tuple(tokens)] = units.flatten(1)
            if position is not None:
                units.flatten(1)[position, wanted] = kept[tuple(CLEAN)][position, wanted]
            made = [experts.down_proj[expert] @ units[row, expert] for row, expert in enumerate(index[:, 0])]
            return torch.stack(made) * weights

        with monkeypatch.context() as patch, torch.no_grad():
            patch.setitem(experts.__dict__, "forward", forward)
            return float(metric(model.module, tokens))

    assert run(CLEAN) == pytest.approx(metric(model.module, CLEAN).item(), abs=1e-12)
    base = run(CORRUPTED)
    for name, wanted in (("neuron.0", slice(None)), (f"neuron.0.{width}:{2 * width}", slice(width, 2 * width))):
        found = attrib.explain(model, PAIR, attrib.ActivationPatching(sites=name), ANSWER).values[0, 0]
        effects = [run(CORRUPTED, position, wanted) - base for position in range(LAST + 1)]
        torch.testing.assert_close(found, found.new_tensor(effects), rtol=0, atol=1e-9)
        assert max(map(abs, effects)) > 1e-4


@pytest.mark.parametrize("family", WHERE)
def test_every_site_is_scored_and_identical_prompts_give_zeros(family):
    model = wrapped(family)
    names = tuple(site.name for site in all_sites(structure_of(model)))
    assert {"attn_out", "mlp_out", "head", "q", "k", "v", "neuron"} <= {s.kind for s in all_sites(structure_of(model))}
    for method in (attrib.ActivationPatching, attrib.AttributionPatching, attrib.RelP):
        same = attrib.explain(model, attrib.pair([CLEAN], [CLEAN]), method(sites=names), ANSWER)
        assert same.sites == names and not same.values.any()
    for method in (attrib.AttributionPatching, attrib.RelP):
        values = attrib.explain(model, PAIR, method(sites=names), ANSWER).values
        assert values.isfinite().all() and (values.abs().amax((0, 2)) > 0).float().mean() > 0.75


@pytest.mark.parametrize("family", ["zamba", "zamba2"])
def test_nothing_lies_between_attention_and_the_mlp_that_it_hands_to(family):
    structure = structure_of(wrapped(family))
    with pytest.raises(attrib.UnsupportedModel, match=r"no resid_mid sites: .* hands what it makes to the MLP alone"):
        select(structure, "resid_mid.*")
    assert not structure.parallel and [layer.units for layer in structure.layers] == [0, 48, 48]


def test_blocks_are_not_replayed_where_they_hand_on_more_than_the_stream():
    """A patch in ZAYA's first layer changes what its router hands to the second's."""
    model = wrapped("zaya")
    sites = ("attn_out.0", "attn_out.1", "mlp_out.1")
    result = attrib.explain(model, PAIR, attrib.ActivationPatching(sites=sites), ANSWER)
    assert "every patch is a whole forward" in str(result.notes)
    with pytest.raises(attrib.UnsupportedModel, match="layer 1 reads more of the layers before it than the stream"):
        attrib.explain(model, PAIR, attrib.RelP(edges=True), ANSWER)


class Joining(nn.Module):
    """A module without parts whose weights are vectors."""

    def __init__(self, together):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8))
        self.together = together

    def forward(self, made, stream):
        return self.together(made * self.scale + self.shift, stream * self.shift)


@pytest.mark.parametrize(
    ("together", "kind"), [(lambda a, b: a + b, "sum"), (lambda a, b: a * b.sigmoid(), "pointwise")]
)
def test_a_module_with_vectors_is_seen_from_inside_if_it_only_adds(together, kind):
    twin = shadow(nn.ModuleDict({"linear": nn.Linear(8, 8), "join": Joining(together)}))
    trace = Trace(twin).run(torch.rand(1, 5, 8).requires_grad_(), lambda twin, x: twin["join"](twin["linear"](x), x))
    node = trace.nodes[trace.node_of(trace.output)]
    made = trace.node_of(trace.tensors[trace.visits_of("linear")[0].output])
    assert node.kind == kind and (made in node.inputs) == (kind == "pointwise")
