"""Models that read memory in its usual order: `y.view(batch, -1)` behind a convolution, `as_strided`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrib

CHEAP = {
    "integrated_gradients": attrib.IntegratedGradients(n_steps=4),
    "smoothgrad": attrib.SmoothGrad(n_samples=3),
    "vargrad": attrib.METHODS["vargrad"](n_samples=3),
    "gradient_shap": attrib.METHODS["gradient_shap"](n_samples=3),
    "occlusion": attrib.Occlusion(window=8, stride=8),
    "kernel_shap": attrib.METHODS["kernel_shap"](n_samples=8),
}
NAMES = [name for name, cls in attrib.METHODS.items() if "image" in cls.applies_to and not cls.needs_attention]


class LeNet(nn.Module):
    """As in countless tutorials."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.shape = shape
        self.first, self.second = nn.Conv2d(3, 4, 5), nn.Conv2d(4, 6, 5)
        self.hidden, self.head = nn.Linear(6 * 5 * 5, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        if self.shape == "view":
            x = x.view(-1, 150)
        elif self.shape == "as_strided":
            x = torch.as_strided(x, (len(x), 150), (150, 1))
        else:
            x = x.flatten(1)
        answer: Tensor = self.head(F.relu(self.hidden(x)))
        return answer


@pytest.mark.parametrize("shape", ["view", "as_strided"])
@pytest.mark.parametrize("name", NAMES)
def test_memory_in_its_usual_order(name: str, shape: str) -> None:
    torch.manual_seed(0)
    plain, reading = LeNet("flatten"), LeNet(shape)
    reading.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 32, 32)
    expected, found = (attrib.explain(attrib.wrap(net), x, CHEAP.get(name, name), 1) for net in (plain, reading))
    torch.testing.assert_close(found.score, expected.score, rtol=1e-5, atol=1e-6)
    if shape == "view":
        scale = float(expected.values.abs().max())
        torch.testing.assert_close(found.values, expected.values, rtol=1e-3, atol=1e-4 * scale)
