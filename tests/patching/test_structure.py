"""Sites are found in every family without knowing it, and what cannot be found is said."""

from __future__ import annotations

import pytest
import text_families
import torch
from patching_oracles import network, wrapped
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import attrib
from attrib.patching.access import reading
from attrib.patching.probing import structure_of
from attrib.patching.sites import all_sites, kind_of, layer_of, select
from attrib.rules.shadow import shadow

TOKENIZERS = {"bert": text_families.word_piece, "distilbert": text_families.word_piece}
HEADS = [(f, "masked") for f in text_families.ENCODERS] + [(f, "next_token") for f in text_families.DECODERS]
HEADS += [(f, "classification") for f in ("bert", "gpt2", "llama")]
PARALLEL = {"gpt_neox"}
GROUPED = {"llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "mistral", "phi3"}


def wrap(module: nn.Module, family: str = "gpt2"):
    return attrib.wrap(module, tokenizer=TOKENIZERS.get(family, text_families.byte_level)())


@pytest.mark.parametrize(("family", "head"), HEADS)
def test_every_family_has_all_its_sites(family, head):
    model = wrap(text_families.model(family, head), family)
    structure = structure_of(model)
    assert structure is structure_of(model), "probed once"
    assert structure.missing == () and len(structure.layers) == 2
    assert (structure.heads, structure.head_dim, structure.width) == (4, 8, 32)
    assert structure.kv_heads == (2 if family in GROUPED else 4)
    assert structure.parallel == (family in PARALLEL)
    kinds = {site.kind for site in all_sites(structure)}
    expected = {"embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head", *"qkv", "neuron"}
    assert kinds == expected - ({"resid_mid"} if structure.parallel else set())
    paths = dict(model.module.named_modules())
    assert all(site.path in paths for site in all_sites(structure)) and structure.head in paths


@pytest.mark.parametrize(("family", "head"), HEADS)
def test_what_attention_and_mlp_add_is_what_the_stream_gains(family, head):
    """resid_post = resid_pre + attn_out + mlp_out, and the parts in between, in numbers; with norms behind the sums
    (BERT) up to those norms."""
    model = wrap(text_families.model(family, head).double(), family)
    sites = {s.name: s for s in select(structure_of(model), ("resid_*.*", "attn_out.*", "mlp_out.*"))}
    ids = torch.tensor([[5, 9, 100, 23, 7]]) if family not in TOKENIZERS else torch.tensor([[2, 9, 4, 60, 3]])
    encoded = model.encode(ids) if head != "masked" or family in TOKENIZERS else model.encode([[0, 9, 3, 60, 2]])
    twin = shadow(model.module)
    with torch.no_grad(), reading(twin, [s.place for s in sites.values()]) as found:
        model.forward(twin, encoded.x, encoded.extra)
    value = {name: found.values[site.place] for name, site in sites.items()}
    for layer in range(2):
        gained = value[f"resid_pre.{layer}"] + value[f"attn_out.{layer}"]
        norm = _norm(gained) if family in ("bert", "roberta", "distilbert") else gained
        if f"resid_mid.{layer}" in value:
            torch.testing.assert_close(_norm(value[f"resid_mid.{layer}"]), _norm(norm), rtol=1e-4, atol=1e-4)
            gained = value[f"resid_mid.{layer}"]
        gained = gained + value[f"mlp_out.{layer}"]
        torch.testing.assert_close(_norm(value[f"resid_post.{layer}"]), _norm(gained), rtol=1e-4, atol=1e-4)


def _norm(x: Tensor) -> Tensor:
    """Without mean and scale: an untrained LayerNorm changes nothing else."""
    return torch.nn.functional.layer_norm(x.reshape(-1, x.shape[-1]), x.shape[-1:])


class InPlaceBlock(nn.Module):
    """A block that adds the stream to what its parts put out, in place."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden_states, past_key_values=None, attention_mask=None, *others, **given):
        attended = self.block.attn(self.block.ln_1(hidden_states), attention_mask=attention_mask)[0]
        attended += hidden_states
        output = self.block.mlp(self.block.ln_2(attended))
        output += attended
        return output


def test_a_stream_that_is_changed_in_place_reads_the_same():
    module = network("gpt2")
    sites = ("resid_mid.*", "attn_out.*", "mlp_out.*", "head.*.*")
    pair, target = attrib.pair([[5, 6, 7, 8]], [[5, 9, 7, 8]]), attrib.LogitDiff(12, 25)
    expected = {m: attrib.explain(wrapped(module), pair, m(sites=sites), target).values for m in METHODS}
    for i, block in enumerate(module.transformer.h):
        module.transformer.h[i] = InPlaceBlock(block)
    changed = wrapped(module)
    assert structure_of(changed).layers[0].attentions[0].made.changed
    for method, values in expected.items():
        torch.testing.assert_close(attrib.explain(changed, pair, method(sites=sites), target).values, values)


METHODS = (attrib.RelP, attrib.AttributionPatching)


def test_names_and_patterns():
    structure = structure_of(wrapped(network("llama")))
    names = [site.name for site in all_sites(structure)]
    assert len(names) == len(set(names)) and names[0] == "embed" and names[-1] == "resid_post.1"
    chosen = lambda *patterns: [site.name for site in select(structure, patterns)]  # noqa: E731
    assert chosen("resid_post.*", "resid_*.1") == ["resid_post.0", "resid_post.1", "resid_pre.1", "resid_mid.1"]
    assert chosen("head.*.3") == ["head.0.3", "head.1.3"]
    assert chosen("head.1.*.k") == ["head.1.0.k", "head.1.1.k"]  # two key-value heads
    assert chosen("neuron.1") == ["neuron.1"] and chosen("neuron.0.3", "neuron.1.4:7") == ["neuron.0.3", "neuron.1.4:7"]
    assert len(chosen("neuron.*.*")) == 2 * 24 and chosen("*") == names
    assert [kind_of(n) for n in ("head.1.2", "head.1.2.q", "mlp_out.0")] == ["head", "q", "mlp_out"]
    assert (layer_of("embed"), layer_of("head.1.2.q")) == (None, 1)


@pytest.mark.parametrize(
    ("pattern", "near"),
    [("resid_posst.1", "resid_post.1"), ("atn_out.*", "attn_out"), ("head.9.9", "head."), ("neuron.0.99", "neuron.")],
)
def test_an_unknown_site_names_the_nearest(pattern, near):
    with pytest.raises(attrib.UnknownName, match=near):
        select(structure_of(wrapped(network("gpt2"))), pattern)


def test_sites_that_this_model_does_not_have():
    with pytest.raises(attrib.UnsupportedModel, match="run in parallel"):
        select(structure_of(wrapped(network("neox"))), "resid_mid.*")
    with pytest.raises(attrib.InputError, match="no site"):
        select(structure_of(wrapped(network("gpt2"))), ())


def test_models_without_blocks_or_attention():
    with pytest.raises(attrib.UnsupportedModel, match="no transformer of texts"):
        structure_of(attrib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 3))))
    small = {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": text_families.ROWS, "n_positions": 32}
    module = GPT2LMHeadModel(GPT2Config(**small, bos_token_id=1, eos_token_id=2)).eval()
    for block in module.transformer.h:
        block.attn.forward = lambda x, **given: (x * 2, None)
    with pytest.raises(attrib.UnsupportedModel, match="at most one other mixer"):
        select(structure_of(wrap(module)), "attn_out.*")
    assert len(select(structure_of(wrap(module)), "resid_post.*")) == 2
    module.transformer.h[1] = module.transformer.h[0]
    assert [layer.post.call for layer in structure_of(wrap(module)).layers] == [0, 1]


def test_the_command_lists_sites_with_their_modules(monkeypatch, capsys):
    from attrib import cli

    monkeypatch.setattr(attrib, "load", lambda name, device=None: wrapped(network("llama")))
    monkeypatch.setattr("sys.argv", ["attrib", "sites", "tiny", "--pattern", "head.1.*", "--pattern", "resid_mid.0"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert ["resid_mid.0", "model.layers.0.post_attention_layernorm", "its", "input"] in rows
    assert ["head.1.3", "model.layers.1.self_attn.o_proj", "its", "input,", "columns", "12", "to", "15"] in rows
    assert len(rows) == 1 + 4 + 1
