"""Networks of one's own over tokens, without transformers: plain torch modules that take embeddings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.errors import NotApplicable, UnsupportedModel
from tests.models.text_families import word_piece

WIDTH, LONGEST = 16, 24
ROWS = len(word_piece())


class Reader(nn.Module):
    """Takes ids or embeddings, as transformers' models do."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.config = SimpleNamespace()
        self.words = nn.Embedding(ROWS, WIDTH)
        self.last = nn.Linear(WIDTH, classes)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def forward(self, input_ids: Any = None, attention_mask: Any = None, inputs_embeds: Any = None) -> Any:
        return self.read(self.words(input_ids) if inputs_embeds is None else inputs_embeds, attention_mask)


class Recurrent(Reader):
    """No attention, and nothing that says where a token is."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def read(self, x: Tensor, mask: Any) -> Any:
        return self.last(self.cell(x)[0][:, -1])


def _encoder(**options: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class Classifier(Reader):
    """Its positions are a parameter without a batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.pos = nn.Parameter(torch.randn(LONGEST, WIDTH))
        self.encoder = _encoder()

    def read(self, x: Tensor, mask: Any) -> Any:
        hidden = self.encoder(x + self.pos[: x.shape[1]], src_key_padding_mask=None if mask is None else mask == 0)
        return {"logits": self.last(hidden[:, 0])}


class Writer(Reader):
    """A causal language model; its positions are an embedding whose name says nothing."""

    def __init__(self) -> None:
        super().__init__(ROWS)
        self.where = nn.Embedding(LONGEST, WIDTH)
        self.encoder = _encoder(norm_first=True)

    def read(self, x: Tensor, mask: Any) -> Any:
        count = x.shape[1]
        later = nn.Transformer.generate_square_subsequent_mask(count, dtype=x.dtype)
        return self.last(self.encoder(x + self.where(torch.arange(count)), mask=later, is_causal=True))


def wrapped(network: type[Reader]) -> Any:
    torch.manual_seed(0)
    return attrib.wrap(network().double().eval(), tokenizer=word_piece())


@pytest.mark.parametrize(
    ("network", "task"), [(Recurrent, "classification"), (Classifier, "classification"), (Writer, "next_token")]
)
def test_they_are_explained_like_any_other(network, task):
    model = wrapped(network)
    assert model.task == task
    x = [[20, 30, 40, 50], [60, 20, 30, 70]]
    for method in ("lrp", "deeplift", attrib.IntegratedGradients()):
        result = attrib.explain(model, x, method, target=1)
        assert float(result.relative_delta.max()) < 0.02  # integrated gradients meet ReLUs
    assert result.values.shape == (2, 4)
    if task == "classification":
        assert model.labels == ("0", "1", "2")


@pytest.mark.parametrize("network", [Classifier, Writer])
def test_their_positions_are_found_and_are_summands_like_words(network):
    model, swapped = wrapped(network), wrapped(network)
    texts, method = [[20, 30, 40, 50], [60, 20, 30, 70]], attrib.LRP("attn_lrp", positions=True)
    together = attrib.explain(model, texts, method, target=1)
    assert float(together.relative_delta.max()) < 1e-10
    for row, ids in enumerate(texts):
        with torch.no_grad():  # words stand where positions stood, and the other way round: the same sums
            swapped.module.words.weight[ids] = positions_of(model.module)[: len(ids)]
            positions_of(swapped.module)[: len(ids)] = model.module.words.weight[ids]
        other = attrib.explain(swapped, [ids], method, target=1)
        for one, two in (("content", "position"), ("position", "content")):
            assert torch.allclose(together.parts[one][row], other.parts[two][0], rtol=1e-8)


def positions_of(module: Any) -> Tensor:
    found: Tensor = module.pos if isinstance(module, Classifier) else module.where.weight
    return found


def test_what_they_lack_is_told():
    with pytest.raises(UnsupportedModel, match=r"needs a config, get_input_embeddings\(\) and a forward"):
        attrib.wrap(nn.Linear(2, 2), tokenizer=word_piece())
    with pytest.raises(NotApplicable, match="no position embedding"):
        attrib.explain(wrapped(Recurrent), [[20, 30]], attrib.LRP(positions=True), target=1)
