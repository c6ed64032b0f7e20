"""Finding where a model gets its positions from: by structure, on a twin, leaving nothing behind."""

from __future__ import annotations

import pytest
import text_families
import torch
from torch import Tensor, nn
from transformers import RoFormerConfig, RoFormerForSequenceClassification

import attrib
from attrib.errors import NotApplicable
from attrib.models.positions import per_position, position_sources
from attrib.rules.shadow import shadow


class Learned(nn.Module):
    """A position table called `name`, a lookup of `rows` or a parameter."""

    def __init__(self, name: str, table: bool, rows: tuple[int, ...] = (0, 1, 2, 3, 4)) -> None:
        super().__init__()
        self.name, self.rows = name, torch.tensor(rows)
        setattr(self, name, nn.Embedding(5, 4) if table else nn.Parameter(torch.randn(1, 5, 4)))

    def forward(self, x: Tensor) -> Tensor:
        found = getattr(self, self.name)
        return x + (found(self.rows) if isinstance(found, nn.Embedding) else found)


@pytest.mark.parametrize("name", ["wpe", "position_embeddings", "position_embedding", "pos_embed", "embed_positions"])
@pytest.mark.parametrize("table", [True, False])
def test_found_by_name_one_row_per_sample(name, table):
    model = Learned(name, table)
    twin, x = shadow(model), torch.randn(3, 5, 4)
    with position_sources(twin, 3) as sources:
        output = twin(x)
    ((where, leaf),) = sources.leaves
    assert where == name and leaf.shape == (3, 5, 4) and leaf.requires_grad and leaf.is_leaf
    assert torch.equal(output.detach(), model(x).detach())
    (gradient,) = torch.autograd.grad(output.sum(), [leaf])
    assert torch.equal(gradient, torch.ones(3, 5, 4))


def test_found_by_consecutive_rows_whatever_the_name():
    twin = shadow(Learned("composed", True, (1, 2, 3, 4)))
    with position_sources(twin, 1) as sources:
        twin(torch.randn(1, 4, 4))
    assert [where for where, _ in sources.leaves] == ["composed"]


@pytest.mark.parametrize("rows", [(0, 0, 1, 1, 1), (4, 3, 2, 1, 0), (2, 2, 2, 2, 2), (0, 2, 3, 4, 1)])
def test_other_tables_are_no_positions(rows):
    with (
        pytest.raises(NotApplicable, match="no position embedding, rotary table or ALiBi bias"),
        position_sources(twin := shadow(Learned("token_type_embeddings", True, rows)), 1),
    ):
        twin(torch.randn(1, 5, 4))


class Inner(nn.Module):
    def forward(self, x: Tensor, position_embeddings: tuple[Tensor, Tensor] | None = None) -> Tensor:
        return x if position_embeddings is None else x * position_embeddings[0] + position_embeddings[1]


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Inner(), Inner()])

    def forward(self, x: Tensor) -> Tensor:
        tables = (torch.full((1, 5, 4), 2.0), torch.ones(1, 5, 4))
        for layer in self.layers:
            x = layer(x, position_embeddings=tables)
        return x


def test_every_layer_gets_leaves_of_its_own():
    twin = shadow(Rotary())
    with position_sources(twin, 2) as sources:
        twin(torch.zeros(2, 5, 4))
    assert [where for where, _ in sources.leaves] == ["layers.0", "layers.0", "layers.1", "layers.1"]
    assert len({leaf.data_ptr() for _, leaf in sources.leaves}) == 4 and not sources.experimental


def test_the_model_and_its_hooks_are_left_alone():
    model = Rotary()
    twin = shadow(model)
    with position_sources(twin, 1):
        twin(torch.zeros(1, 5, 4))
    for module in (*model.modules(), *twin.modules()):
        assert not module._forward_pre_hooks and not module._forward_hooks
    assert not twin(torch.zeros(1, 5, 4)).requires_grad


def test_an_error_inside_is_not_replaced_by_ours():
    with pytest.raises(ZeroDivisionError), position_sources(shadow(nn.Linear(2, 2)), 1):
        raise ZeroDivisionError


def test_relevance_is_summed_over_all_but_tokens():
    assert torch.equal(per_position(torch.ones(2, 5, 8), 2, 5), torch.full((2, 5), 8.0))
    heads = torch.arange(2 * 3 * 5.0).reshape(6, 1, 5)  # ALiBi: heads of one sample side by side
    assert torch.equal(per_position(heads, 2, 5), heads.reshape(2, 3, 5).sum(1))


def test_texts_of_unequal_length_that_a_model_reads_apart():
    """A causal classifier without a padding token gets texts of one length at a time: each alone, then padded."""
    classifier = text_families.model("llama", "classification", pad_token_id=None)
    subject = attrib.wrap(classifier, tokenizer=text_families.metaspace())
    texts, method = ["not good", "wonderful music but not so good"], attrib.LRP(preset="attn_lrp", positions=True)
    both = attrib.explain(subject, texts, method, 0)
    for row, text in enumerate(texts):
        alone = attrib.explain(subject, text, method, 0)
        tokens = alone.values.shape[1]
        assert torch.equal(both.values[row, :tokens], alone.values[0]) and not both.values[row, tokens:].any()
        assert torch.equal(both.parts["position_by_layer"][row, :, :tokens], alone.parts["position_by_layer"][0])
        assert both.ledger["position"][row] == alone.ledger["position"][0] != 0


def test_a_rotation_that_is_looked_up_once_is_followed_for_each_text_of_a_batch():
    tokenizer = text_families.word_piece()
    sizes = {"hidden_size": 32, "embedding_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = RoFormerConfig(vocab_size=len(tokenizer), intermediate_size=64, pad_token_id=0, **sizes)
    torch.manual_seed(0)
    module = RoFormerForSequenceClassification(config).eval().double()
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    subject, method = attrib.wrap(module, tokenizer=tokenizer), attrib.LRP("attn_lrp", positions=True)
    texts = ["a good film", "the film"]
    both = attrib.explain(subject, texts, method, target=0)
    for row, text in enumerate(texts):
        alone = attrib.explain(subject, text, method, target=0)
        tokens = alone.values.shape[1]
        torch.testing.assert_close(both.values[row, :tokens], alone.values[0])
        torch.testing.assert_close(both.parts["position"][row, :tokens], alone.parts["position"][0])
        assert alone.parts["position"].abs().max() > 1e-6 and float(alone.delta.abs()) < 1e-9
