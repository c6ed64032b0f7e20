"""Whether two answers of a model agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attrib.outputs import agree

NAN, INF = float("nan"), float("inf")
ONE = torch.tensor([[1.0, -10.0], [0.1, 0.2]])


@pytest.mark.parametrize(
    ("found", "expected", "agreeing"),
    [
        (ONE + 0.001, ONE, False),  # too much for the second sample
        (ONE + torch.tensor([[0.01], [0.0001]]), ONE, True),
        (ONE * NAN, ONE * NAN, True),
        (ONE * NAN, ONE, False),
        (ONE, ONE * NAN, False),
        (ONE * INF, ONE * INF, True),
        (ONE * INF, -ONE * INF, False),
        (ONE[:1], ONE, False),
        (ONE[0], ONE[0], True),
        (ONE[0, 0], ONE[0, 0] + 1, False),
        (ONE[:, :0], ONE[:, :0], True),
        (torch.zeros(2, 3), torch.zeros(2, 3), True),
        (torch.ones(2, 3), torch.zeros(2, 3), False),
    ],
)
def test_answers_agree(found: Tensor, expected: Tensor, agreeing: bool) -> None:
    assert agree(found, expected, 0.0011) is agreeing
