"""Models whose samples lie in another dimension than the first somewhere inside: every ledger adds up to its score."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.methods.propagation import ALONE


class TokensFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(self.patches(x).flatten(2).permute(2, 0, 1)).mean(0))
        return out


# 16 tokens: of 3 samples nobody can tell by their number whose an amount is, of 4 and 16 it looks as if one could
@pytest.mark.parametrize("batch", [3, 4, 16])
@pytest.mark.parametrize("preset", ["epsilon", "epsilon_plus_flat", "attn_lrp"])
def test_tokens_first(preset: str, batch: int) -> None:
    torch.manual_seed(0)
    model = attrib.wrap(TokensFirst().double().eval())
    x = torch.randn(batch, 3, 16, 16, dtype=torch.float64)
    first, again = (attrib.explain(model, x, attrib.LRP(preset=preset), target=1) for _ in range(2))
    alone = [attrib.explain(model, row[None], attrib.LRP(preset=preset), target=1) for row in x]
    for found in (first, again):
        assert found.delta is not None and found.ledger is not None
        assert float(found.delta.abs().max()) < 1e-9
        assert ALONE in found.notes
        for name, amounts in found.ledger.items():
            torch.testing.assert_close(amounts, torch.cat([one.ledger[name] for one in alone if one.ledger]))


def test_samples_in_the_first_dimension_stay_together() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 5)).eval()
    found = attrib.explain(attrib.wrap(net), torch.randn(4, 3, 16, 16), attrib.LRP(), target=1)
    assert ALONE not in found.notes
